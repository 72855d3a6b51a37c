-- Notes until when an access token of a live session may live. KEYS: the session. ARGV: now, until when; 15 digits each.
-- Tells member, app, openid, beginning and end of the session; nothing when it is over or not known.
local session = redis.call('HMGET', KEYS[1], 'm', 'a', 'o', 'c', 'x', 'u', 'e')
local member, app, openid, created, ends, access, ended = unpack(session)
if not member or ended or tonumber(ends) <= tonumber(ARGV[1]) then
    return {}
end
local till = ARGV[2]
if tonumber(till) > tonumber(ends) then
    till = ends
end
if tonumber(till) > tonumber(access) then
    redis.call('HSET', KEYS[1], 'u', till)
end
return { member, app, openid, created, ends }
