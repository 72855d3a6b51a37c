-- Forgets revocations and notices that are needed no longer. KEYS: revocations, notices. ARGV: now. Tells how many went. What
-- has no end that can be read is of a kind that a later version writes, and its business.
local gone = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
    local till = tonumber(string.sub(all[i + 1], 17, 31))
    if till and till <= tonumber(ARGV[1]) then
        redis.call('HDEL', KEYS[2], all[i])
        gone = gone + 1
    end
end
return gone
