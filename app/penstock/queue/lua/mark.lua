-- Says that a queue's shelves are whole: nothing was flushed since the rebuild that restored them
-- began.
--
-- KEYS  1 meta, 2 rebuild (the name of the one that goes on)
-- ARGV  1 Postgres' time in ms, 2 the rebuild's name, or '' to say it without one
-- returns 1 if it was said, 0 if another rebuild goes on, or none
-- bound: constant. Safe to repeat, but once it was said the rebuild is over.
if ARGV[2] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], 'whole_since_ms', ARGV[1])
redis.call('DEL', KEYS[2])
return 1
