-- Puts in line again what stands on no shelf: the reconciler's verb. It adds before it removes:
-- after a first removal, a Redis that refuses to grow would let the script grow it all the same.
--
-- KEYS  1 leases, 2 scheduled, 3 blocked (what is missing waits for parents no more), 4… ready shelves
-- ARGV  for each key from KEYS[4] on: how many members, and as many
--       (score, id, the member it would have on the scheduled shelf);
--       then how many future members, and as many (score, id, scheduled member)
-- returns how many were missing
-- bound: the caller sends at most 1,000 members. Safe to repeat.
local missing = 0
local at = 1
local function each(put)
    local count = tonumber(ARGV[at])
    for n = 0, count - 1 do
        local score, id, future = ARGV[at + 1 + 3 * n], ARGV[at + 2 + 3 * n], ARGV[at + 3 + 3 * n]
        if not redis.call('ZSCORE', KEYS[1], id) then
            local added = put(score, id, future)
            if added == 1 then redis.call('ZREM', KEYS[3], id) end
            missing = missing + added
        end
    end
    at = at + 1 + 3 * count
end
for i = 4, #KEYS do
    each(function(score, id, future)
        local added = redis.call('ZADD', KEYS[i], 'NX', score, id)
        redis.call('ZREM', KEYS[2], future)
        return added
    end)
end
each(function(score, _, future)
    return redis.call('ZADD', KEYS[2], 'NX', score, future)
end)
return missing
