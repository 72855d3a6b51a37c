-- Puts the sealed keys of the deployment in the place of what was there. KEYS: their name. ARGV: old (empty: nothing), new.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
