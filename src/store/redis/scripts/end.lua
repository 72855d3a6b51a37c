-- Ends a session and forgets whose it was. KEYS: the session. ARGV: now.
-- Tells whether it was live, until when its access tokens may live, member and app.
local session = redis.call('HMGET', KEYS[1], 'x', 'e', 'u', 'm', 'a')
local ends, ended, access, member, app = unpack(session)
if not ends then
    return { '0', '0', '', '' }
end
if ended or tonumber(ends) <= tonumber(ARGV[1]) then
    return { '0', access, member, app }
end
redis.call('HSET', KEYS[1], 'e', '1')
redis.call('HDEL', KEYS[1], 'o')
return { '1', access, member, app }
