-- Puts the same session_key, sealed anew, in the place of what was there. KEYS: the person's keys. ARGV: old, new.
local known = redis.call('HMGET', KEYS[1], 'n', 'p')
local done = 0
if known[1] == ARGV[1] then
    redis.call('HSET', KEYS[1], 'n', ARGV[2])
    done = 1
end
if known[2] == ARGV[1] then
    redis.call('HSET', KEYS[1], 'p', ARGV[2])
    done = 1
end
return done
