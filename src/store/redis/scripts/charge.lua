-- Charges a bucket (GCRA), whatever is left in it. KEYS: when it is full again, microseconds by the clock of this server.
-- ARGV: by how much later it becomes full, and how far ahead that may have been, microseconds. Returns how far ahead it is.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = tonumber(redis.call('GET', KEYS[1]) or '0')
full = math.max(math.min(full, now + tonumber(ARGV[2])), now) + tonumber(ARGV[1])
-- Nobody needs it when it is full; a second more, for clocks that were set.
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', math.ceil((full - now) / 1000) + 1000))
return full - now
