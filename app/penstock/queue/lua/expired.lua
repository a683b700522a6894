-- The ids whose lease is over. They stay: Postgres is asked what they are, then enqueue.lua
-- takes them off.
--
-- KEYS  1 leases
-- ARGV  1 how many at most
-- returns {id, id, …}
-- bound: ARGV[1], at most 1,000. Safe to repeat.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
