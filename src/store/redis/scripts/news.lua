-- The birth mark, and what was told since a position; the position itself stands first when it is still known. Without a
-- position the last that was told. KEYS: birth mark, news. ARGV: position or nothing, how many at most.
local told
if ARGV[1] == '' then
    told = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
else
    told = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])
end
return { redis.call('GET', KEYS[1]), told }
