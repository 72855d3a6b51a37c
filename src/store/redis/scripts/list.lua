-- Adds a session to those of its member; tells the oldest others where there are too many then (0: there may be any number).
-- They stay listed until they have been ended: who is in no list is reached by no end of all. `life` is in ms.
local function list(name, session, begun, life, most)
    redis.call('ZADD', name, begun, session)
    if redis.call('PTTL', name) < tonumber(life) then
        redis.call('PEXPIRE', name, life)
    end
    local surplus = redis.call('ZCARD', name) - tonumber(most)
    local out = {}
    if tonumber(most) > 0 and surplus > 0 then
        for _, id in ipairs(redis.call('ZRANGE', name, 0, surplus)) do
            if id ~= session and #out < surplus then
                table.insert(out, id)
            end
        end
    end
    return out
end
