-- Prolongs the leases that still stand.
--
-- KEYS  1 leases
-- ARGV  1 the lease in ms, then ids
-- returns Redis' time in ms
-- bound: the caller sends at most 1,000 ids. Safe to repeat.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = string.format('%.0f', now + ARGV[1])
local members = {}
for i = 2, #ARGV do
    members[#members + 1] = expiry
    members[#members + 1] = ARGV[i]
end
redis.call('ZADD', KEYS[1], 'XX', unpack(members))
return now
