-- Writes a revocation, which never gets shorter, and tells every instance.
-- KEYS: revocations, news. ARGV: session, until, longest length of the news.
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if known and tonumber(known) >= tonumber(ARGV[2]) then
    return 0
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'session:' .. ARGV[1], ARGV[2])
return 1
