-- Pops the first n ids of these ready shelves, merged by score, and puts them on leases: one step.
-- It pops before it adds, so that it works when Redis refuses to grow. Of several shelves it looks
-- at a block each, 4,000 ids in all, and stops where a block that may have more behind it is used
-- up.
--
-- KEYS  1 leases, 2 meta, 3… ready shelves (one a kind that the caller serves)
-- ARGV  1 n, 2 the lease in ms
-- returns {1 if the queue's marker stands else 0, 1 if it stopped at a block's end else 0,
--          id, id, …} in order
-- bound: n is at most 1,000. Not to be repeated: what it popped comes back when its lease ends.
local n = tonumber(ARGV[1])
local ids, more = {}, 0
if #KEYS == 3 then
    local popped = redis.call('ZPOPMIN', KEYS[3], n)
    for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
else
    local block = math.max(16, math.min(n, math.floor(4000 / (#KEYS - 2))))
    local heads = {}
    for k = 3, #KEYS do
        local found = redis.call('ZRANGE', KEYS[k], 0, block - 1, 'WITHSCORES')
        for i = 1, #found, 2 do
            local ends = block < n and i == 2 * block - 1
            heads[#heads + 1] = {tonumber(found[i + 1]), found[i], KEYS[k], ends}
        end
    end
    table.sort(heads, function(a, b)
        return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
    end)
    for i = 1, math.min(n, #heads) do
        redis.call('ZREM', heads[i][3], heads[i][2])
        ids[i] = heads[i][2]
        if heads[i][4] then
            more = 1
            break
        end
    end
end
if #ids > 0 then
    local time = redis.call('TIME')
    local expiry = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
    local members = {}
    for i = 1, #ids do
        members[2 * i - 1] = expiry
        members[2 * i] = ids[i]
    end
    redis.call('ZADD', KEYS[1], unpack(members))
end
return {redis.call('EXISTS', KEYS[2]), more, unpack(ids)}
