-- Makes a session with its first refresh token, unless it is there already.
-- KEYS: the session. ARGV: member, app, openid, created, ends, access until, token, end of the token, life in ms.
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
redis.call('HSET', KEYS[1], 'm', ARGV[1], 'a', ARGV[2], 'o', ARGV[3], 'c', ARGV[4], 'x', ARGV[5], 'u', ARGV[6],
    'h', ARGV[7], ARGV[7], ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
return 1
