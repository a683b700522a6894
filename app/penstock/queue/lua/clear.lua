-- Takes away a key that isn't of the sort that it should be: none of ours, whatever it holds.
--
-- KEYS  1 the key
-- ARGV  1 its sort: hash, string or zset
-- returns 1 if it was taken away, 0 if there was nothing to do
-- bound: constant, but for what the key held. Safe to repeat.
local sort = redis.call('TYPE', KEYS[1])['ok']
if sort == 'none' or sort == ARGV[1] then
    return 0
end
return redis.call('UNLINK', KEYS[1])
