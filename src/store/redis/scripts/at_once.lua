-- Whether a script may touch keys that lie apart in a cluster, and one that was not named to it: a server by itself lets it.
-- Changes nothing. KEYS: two keys. ARGV: another.
return redis.call('EXISTS', KEYS[1]) + redis.call('EXISTS', KEYS[2]) + redis.call('EXISTS', ARGV[1])
