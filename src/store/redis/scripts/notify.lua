-- Writes an epoch, or roles that were changed, and tells every instance. An epoch never moves back. Roles have a content: what
-- arrives last stands, and its time is later than that of what it replaces, whatever the clock of whoever wrote it says.
-- KEYS: notices, news. ARGV: what it is of, its time, until when it is needed, content, longest length of the news. Tells
-- what stands now.
local at, till, content = ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
    local known_at, known_till = string.sub(known, 1, 15), string.sub(known, 17, 31)
    if content ~= '' then
        if tonumber(known_at) >= tonumber(at) then
            at = string.format('%015d', tonumber(known_at) + 1)
        end
    elseif tonumber(known_at) > tonumber(at) then
        at = known_at
    end
    if tonumber(known_till) > tonumber(till) then
        till = known_till
    end
end
local value = at .. ' ' .. till .. ' ' .. content
if value ~= known then
    redis.call('HSET', KEYS[1], ARGV[1], value)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', ARGV[1], value)
end
return value
