-- Moves what is due from the scheduled shelf to the ready shelves, and tells the workers.
-- A scheduled member is the id (16 bytes), the priority (one digit) and the kind; what isn't is
-- taken away.
--
-- KEYS  1 scheduled
-- ARGV  1 how many at most, 2 what a step of priority is worth in ms (0 is strict),
--       3 the prefix of the ready shelves (same hash tag), 4 channel, 5 message,
--       6 how far Redis' clock leads Postgres', in ms: ready scores go by Postgres' clock
-- returns {how many moved, Redis' time in ms, the next score or '', the first score that was moved or ''}
-- bound: ARGV[1], at most 1,000. Safe to repeat.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local aging = tonumber(ARGV[2])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES',
                       'LIMIT', 0, ARGV[1])
local shelves, members = {}, {}
for i = 1, #due, 2 do
    local member, ready_ms = due[i], tonumber(due[i + 1]) - tonumber(ARGV[6])
    local priority, kind = tonumber(string.sub(member, 17, 17)), string.sub(member, 18)
    if priority and kind ~= '' then
        local score = ready_ms - priority * aging
        if aging == 0 then score = (9 - priority) * 4398046511104 + ready_ms end
        local shelf = shelves[kind] or {}
        shelves[kind] = shelf
        shelf[#shelf + 1] = string.format('%.0f', score)
        shelf[#shelf + 1] = string.sub(member, 1, 16)
    end
    members[#members + 1] = member
end
if #members > 0 then
    redis.call('ZREM', KEYS[1], unpack(members))
    for kind, shelf in pairs(shelves) do
        redis.call('ZADD', ARGV[3] .. kind, unpack(shelf))
    end
    redis.call('PUBLISH', ARGV[4], ARGV[5])
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#members, now, head[2] or '', due[2] or ''}
