-- A refresh, where all keys are on one server; after `rotate`.
-- KEYS: name of the token that is shown, name of its successor, revocations. ARGV: what the name of a session begins with,
-- life of the successor's name in ms, what `rotate` takes after the name. Tells the session first. One whose end broke off
-- after its revocation was written is over, too.
local id = redis.call('GET', KEYS[1])
if not id then
    return { '', 'unknown' }
end
if redis.call('ZSCORE', KEYS[3], id) then
    return { id, 'revoked' }
end
local told = rotate(ARGV[1] .. id, ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
if told[1] == 'rotated' then
    redis.call('SET', KEYS[2], id, 'PX', ARGV[2])
end
table.insert(told, 1, id)
return told
