-- Takes units from a caller's budget (GCRA): those that are needed, or none; with them as many of
-- the wanted ones as there are.
--
-- KEYS  1 the budget: when it is whole again, in us of Redis' clock; no key: it is whole
-- ARGV  1 units that are needed, 2 wanted beyond, 3 given back, 4 us a unit, 5 burst in units
-- returns {units taken, us until the needed ones are there else 0, us until the budget is whole}
-- bound: one key, which expires when the budget is whole. More than the burst may be needed: it is
-- taken when the budget is whole, as a debt. Not to be repeated: what was taken twice is spent.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local needed, wanted, unit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local before = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local whole = math.max(before - ARGV[3] * unit, now)
local room = ARGV[5] * unit - (whole - now)
local wait = math.min(needed, tonumber(ARGV[5])) * unit - room
local taken = 0
if wait <= 0 then
    local beyond = math.floor((room - needed * unit) / unit)
    taken = needed + math.max(0, math.min(wanted, beyond))
    whole = whole + taken * unit
end
if whole > now then
    redis.call('SET', KEYS[1], string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000))
else
    redis.call('DEL', KEYS[1])
end
return {taken, math.ceil(math.max(wait, 0)), math.ceil(whole - now)}
