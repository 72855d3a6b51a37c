-- Makes a session with its first refresh token, unless it is there already. `life` is in ms.
local function open(name, member, app, openid, created, ends, access, token, token_ends, life)
    if redis.call('EXISTS', name) == 1 then
        return 0
    end
    redis.call('HSET', name, 'm', member, 'a', app, 'o', openid, 'c', created, 'x', ends, 'u', access, 'h', token,
        token, token_ends)
    redis.call('PEXPIRE', name, life)
    return 1
end
