-- Keeps the newest two session_keys of a person: n and p, of exchanges that began at na and pa. Order is by the beginning
-- of the exchange, not by arrival; the same key again is one key with the time of its newest exchange.
local function keep_key(name, sealed, at)
    local known = redis.call('HMGET', name, 'n', 'na', 'p', 'pa')
    local keys = {}
    for i = 1, 3, 2 do
        if known[i] then
            if known[i] == sealed then
                if tonumber(known[i + 1]) > tonumber(at) then
                    at = known[i + 1]
                end
            else
                table.insert(keys, { known[i], known[i + 1] })
            end
        end
    end
    local place = #keys + 1
    for i = #keys, 1, -1 do
        if tonumber(keys[i][2]) <= tonumber(at) then
            place = i
        end
    end
    table.insert(keys, place, { sealed, at })
    redis.call('HSET', name, 'n', keys[1][1], 'na', keys[1][2])
    if keys[2] then
        redis.call('HSET', name, 'p', keys[2][1], 'pa', keys[2][2])
    end
    return 1
end
