-- All that a login writes, where all keys are on one server; after `open`, `list` and `keep_key`.
-- KEYS: name of the first token, session, sessions of the member, sessions of the app, the apps, the person's session_keys,
-- code. ARGV: what `open` takes after the name; session, life of the token's name in ms, its beginning, how many there may be;
-- sealed key (empty: none), beginning of its exchange; what the code led to, life of that in ms.
-- Tells first whether it is new, then who has to make room. Then the code is not used yet: that comes last.
if redis.call('EXISTS', KEYS[1]) == 1 or
    open(KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]) == 0 then
    return { '0' }
end
local session, life, begun = ARGV[10], ARGV[9], ARGV[12]
redis.call('SET', KEYS[1], session, 'PX', ARGV[11])
redis.call('ZADD', KEYS[4], begun, session)
redis.call('SADD', KEYS[5], ARGV[2])
local surplus = list(KEYS[3], session, begun, life, ARGV[13])
if ARGV[14] ~= '' then
    keep_key(KEYS[6], ARGV[14], ARGV[15])
end
if #surplus == 0 then
    redis.call('SET', KEYS[7], ARGV[16], 'PX', ARGV[17])
end
table.insert(surplus, 1, '1')
return surplus
