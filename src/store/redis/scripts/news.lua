-- The birth mark, and what was told since a position; the position itself stands first when it is still known.
-- KEYS: birth mark, news. ARGV: position, how many at most.
return { redis.call('GET', KEYS[1]), redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2]) }
