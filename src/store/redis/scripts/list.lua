-- Adds a session to those of its member; tells the oldest others where there are too many then. They stay listed until they
-- have been ended: who is in no list is reached by no end of all.
-- KEYS: the member's sessions, by their beginnings. ARGV: session, its beginning, life in ms, how many there may be
-- (0: any number).
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
local surplus = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[4])
local out = {}
if tonumber(ARGV[4]) > 0 and surplus > 0 then
    for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, surplus)) do
        if id ~= ARGV[1] and #out < surplus then
            table.insert(out, id)
        end
    end
end
return out
