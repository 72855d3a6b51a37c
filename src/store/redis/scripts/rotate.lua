-- What becomes of a refresh token that is shown: the one place that decides between rotation, repetition and reuse.
-- `name` is the session; `at` is now, `grace` in ms, `refresh_till` the end of a new successor, `access_till` until when an
-- access token of this use may live. Times are 15 digits. Reuse is told and nothing else: the caller revokes first and ends
-- then.
local function rotate(name, shown, successor, at, grace, refresh_till, access_till)
    local now = tonumber(at)
    local session = redis.call('HMGET', name, 'm', 'a', 'o', 'c', 'x', 'u', 'e', 'h', shown)
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
        local till = least(access_till, ends)
        if tonumber(till) > tonumber(access) then
            redis.call('HSET', name, 'u', till)
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
        if redis.call('HEXISTS', name, successor) == 1 then
            return { 'damaged' }
        end
        local till = least(refresh_till, ends)
        redis.call('HSET', name, shown, token .. at .. successor, successor, till)
        prolong()
        -- What has expired goes, oldest first; a few at a time are enough, since one is added.
        for _ = 1, 4 do
            local old = redis.call('HGET', name, oldest)
            if not old or #old == 15 or tonumber(string.sub(old, 1, 15)) > now then
                break
            end
            redis.call('HDEL', name, oldest)
            oldest = string.sub(old, 31)
            redis.call('HSET', name, 'h', oldest)
        end
        return told('rotated', till)
    end

    local used, given = tonumber(string.sub(token, 16, 30)), string.sub(token, 31)
    local next = redis.call('HGET', name, given)
    if math.max(now - used, 0) < tonumber(grace) and next and #next == 15 and tonumber(next) > now then
        if given ~= successor then
            return { 'foreign' }
        end
        prolong()
        return told('rotated', next)
    end
    return told('reused', ends)
end
