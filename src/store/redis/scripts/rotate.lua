-- What becomes of a refresh token that is shown: the one place that decides between rotation, repetition and reuse.
-- KEYS: the session. ARGV: token, successor, now, grace in ms, end of a new successor, until when an access token of
-- this use may live. Times are 15 digits. Reuse is told and nothing else: the caller revokes first and ends then.
local shown, successor, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local session = redis.call('HMGET', KEYS[1], 'm', 'a', 'o', 'c', 'x', 'u', 'e', 'h', shown)
local member, app, openid, created, ends, access, ended, oldest, token = unpack(session)

local function least(a, b)
    if tonumber(a) < tonumber(b) then
        return a
    end
    return b
end

local function told(what, till)
    return { what, member, app, openid, created, ends, till }
end

local function prolong()
    local till = least(ARGV[6], ends)
    if tonumber(till) > tonumber(access) then
        redis.call('HSET', KEYS[1], 'u', till)
    end
end

if not member or not token then
    return { 'unknown' }
end
if tonumber(string.sub(token, 1, 15)) <= now or tonumber(ends) <= now then
    return { 'unknown' }
end
if ended then
    return { 'ended' }
end

if #token == 15 then
    if redis.call('HEXISTS', KEYS[1], successor) == 1 then
        return { 'damaged' }
    end
    local till = least(ARGV[5], ends)
    redis.call('HSET', KEYS[1], shown, token .. ARGV[3] .. successor, successor, till)
    prolong()
    -- What has expired goes, oldest first; a few at a time are enough, since one is added.
    for _ = 1, 4 do
        local old = redis.call('HGET', KEYS[1], oldest)
        if not old or #old == 15 or tonumber(string.sub(old, 1, 15)) > now then
            break
        end
        redis.call('HDEL', KEYS[1], oldest)
        oldest = string.sub(old, 31)
        redis.call('HSET', KEYS[1], 'h', oldest)
    end
    return told('rotated', till)
end

local used, given = tonumber(string.sub(token, 16, 30)), string.sub(token, 31)
local next = redis.call('HGET', KEYS[1], given)
if math.max(now - used, 0) < tonumber(ARGV[4]) and next and #next == 15 and tonumber(next) > now then
    if given ~= successor then
        return { 'foreign' }
    end
    prolong()
    return told('rotated', next)
end
return told('reused', ends)
