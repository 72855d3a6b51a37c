-- Writes an epoch, or roles that were changed, and tells every instance. Times never move back; of two contents the one
-- of the later time stays, of the same time the one that comes last.
-- KEYS: notices, news. ARGV: what it is of, its time, until when it is needed, content, longest length of the news.
local at, till, content = ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
    local known_at, known_till = string.sub(known, 1, 15), string.sub(known, 17, 31)
    if tonumber(known_at) > tonumber(at) then
        at, content = known_at, string.sub(known, 33)
    end
    if tonumber(known_till) > tonumber(till) then
        till = known_till
    end
end
local value = at .. ' ' .. till .. ' ' .. content
if value == known then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], value)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', ARGV[1], value)
return 1
