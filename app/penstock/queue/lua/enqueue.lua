-- Takes ids off the leases shelf (ack, hand-back) and off the blocked one (unlock), then puts others,
-- or the same, in line or among the blocked, then tells workers what is in line, and those who wait
-- what is over.
--
-- KEYS  1 leases, 2 meta, 3 blocked, 4 scheduled, 5… ready shelves
-- ARGV  1 wake channel, 2 message, 3 channel of ends, 4 ids that ended, as one string
--       ('' for a message tells nobody); 5 how many ids to take off leases, 6 how many off blocked,
--       those ids; then for each key from KEYS[3] on: how many members, and as many (score, member)
-- returns 1 if the queue's marker stands, 0 if its shelves are not whole (a flush, a new queue)
-- bound: the caller sends at most 1,000 ids. Safe to repeat.
local at = 7 + tonumber(ARGV[5])
if at > 7 then
    redis.call('ZREM', KEYS[1], unpack(ARGV, 7, at - 1))
end
local rest = at + tonumber(ARGV[6])
if rest > at then
    redis.call('ZREM', KEYS[3], unpack(ARGV, at, rest - 1))
end
at = rest
for i = 3, #KEYS do
    local count = tonumber(ARGV[at])
    if count > 0 then
        redis.call('ZADD', KEYS[i], unpack(ARGV, at + 1, at + 2 * count))
    end
    at = at + 1 + 2 * count
end
if ARGV[2] ~= '' then
    redis.call('PUBLISH', ARGV[1], ARGV[2])
end
if ARGV[4] ~= '' then
    redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return redis.call('EXISTS', KEYS[2])
