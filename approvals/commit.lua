-- The only script that writes a request. It knows no states and builds no key
-- names: it compares, turns durations into instants of this server's clock,
-- and writes everything or nothing. All checks come before the first write,
-- because Lua has no rollback.
--
-- KEYS  1 request  2 due  3 open  4 sequence  5 events  6 holder  7 same
--       8 the requester's own list  9 mark  10 the other place where this
--       operation's answer may be: its note for a request, its request for a
--       note  11 processes  12 lost
-- ARGV  a flat list, read in order by next(); store.go writes it.
--
-- Answers: status, stored answer, version, now (ms), sequence, for "held" and
-- "same" who is there, and what KEYS[11] had for this process beforehand.

local at = 0
local function next() at = at + 1; return ARGV[at] end
local function int(n) return string.format('%d', n) end

local id, op, mode = next(), next(), next()
local version, claim = next(), next() -- expected; '' for any
local me, told = next(), next() -- the process, and what it knows to be confirmed: rewind.go
local known, seen = string.match(told, '^(%d+) (%d+)$')
local before, after = tonumber(next()), tonumber(next())
local answer = next()
local holder, same = next(), next()          -- '', 'take' or 'free'
local open, mine, due = next(), next(), next() -- '', 'add' or 'remove'; due: '', 'remove' or ms from now
local mark, keep = tonumber(next()), tonumber(next()) -- lives in ms; 0 for none
local tallies = {} -- what this counts for: a key of KEYS, how many at most, within how many ms
for n = 1, tonumber(next()) do
  tallies[n] = { key = tonumber(next()), most = tonumber(next()), within = tonumber(next()) }
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local kept = tonumber(redis.call('ZSCORE', KEYS[11], me) or '0')

local function reply(status, said, who)
  local current = redis.call('HGET', KEYS[1], 'version') or '0'
  local sequence = redis.call('GET', KEYS[4]) or '0'
  return { status, said, current, int(now), sequence, who or '', int(kept) }
end

-- A Redis that has lost confirmed writes is told nothing and answers nothing: what
-- it holds may have happened otherwise.
if redis.call('EXISTS', KEYS[12]) == 1 or kept < tonumber(known) or tonumber(redis.call('GET', KEYS[4]) or '0') < tonumber(seen) then
  return reply('rewound', '')
end

-- The fence comes before everything, replays included: a worker that lost its
-- claim must not hear that its write counted and go on from there.
if claim ~= '' then
  local current = redis.call('HGET', KEYS[1], 'claim')
  if current and current ~= claim then return reply('fenced', '') end
end

-- The same operation again, by a re-sent script, a redelivered entry or a
-- second reader: the first answer.
local said = redis.call('HGET', KEYS[1], 'op:' .. op) or redis.call('HGET', KEYS[10], 'op:' .. op)
if said then return reply('again', said) end

local exists = redis.call('EXISTS', KEYS[1]) == 1
if mode == 'new' then
  if exists then return reply('conflict', '') end
elseif not exists then
  return reply('gone', '')
elseif version ~= '' and redis.call('HGET', KEYS[1], 'version') ~= version then
  return reply('conflict', '')
end
if before > 0 and now >= before then return reply('late', '') end
if after > 0 and now < after then return reply('early', '') end
if holder == 'take' then
  local who = redis.call('GET', KEYS[6])
  if who and who ~= id then return reply('held', '', who) end
end
if same == 'take' then
  local who = redis.call('GET', KEYS[7])
  if who and who ~= id then return reply('same', '', who) end
end
for n, t in ipairs(tallies) do
  if redis.call('ZCOUNT', KEYS[t.key], '(' .. int(now - t.within), '+inf') >= t.most then
    return reply('limited', '', int(n))
  end
end

for _, t in ipairs(tallies) do
  redis.call('ZREMRANGEBYSCORE', KEYS[t.key], '-inf', int(now - t.within))
  redis.call('ZADD', KEYS[t.key], int(now), op)
  redis.call('PEXPIRE', KEYS[t.key], int(t.within))
end
redis.call('HSET', KEYS[1], 'op:' .. op, answer)
if mode ~= 'note' then redis.call('HINCRBY', KEYS[1], 'version', 1) end
for _ = 1, tonumber(next()) do
  local field = next()
  redis.call('HSET', KEYS[1], field, next())
end
for _ = 1, tonumber(next()) do -- durations become instants
  local field = next()
  redis.call('HSET', KEYS[1], field, int(now + tonumber(next())))
end
if due == 'remove' then
  redis.call('ZREM', KEYS[2], id)
elseif due ~= '' then
  redis.call('ZADD', KEYS[2], int(now + tonumber(due)), id)
end
if open == 'add' then redis.call('ZADD', KEYS[3], int(now), id) end
if open == 'remove' then redis.call('ZREM', KEYS[3], id) end
if mine == 'add' then
  redis.call('ZADD', KEYS[8], int(now), id)
  redis.call('ZREMRANGEBYRANK', KEYS[8], 0, -101)
end
if holder == 'take' then redis.call('SET', KEYS[6], id) end
if holder == 'free' and redis.call('GET', KEYS[6]) == id then redis.call('DEL', KEYS[6]) end
if same == 'take' then redis.call('SET', KEYS[7], id) end
if same == 'free' and redis.call('GET', KEYS[7]) == id then redis.call('DEL', KEYS[7]) end
if mark > 0 then -- which request it was counts for that request; of several, each is another's
  local by = redis.call('GET', KEYS[9])
  redis.call('SET', KEYS[9], (not by or by == id) and id or 'several', 'PX', int(mark))
end
for n = 1, tonumber(next()) do
  redis.call('XADD', KEYS[5], '*', 'request', id, 'op', op .. '#' .. int(n), 'body', next())
end
redis.call('ZADD', KEYS[11], int(redis.call('INCR', KEYS[4])), me)
redis.call('ZREMRANGEBYRANK', KEYS[11], 0, -1001) -- the processes heard of last
if keep > 0 then redis.call('PEXPIRE', KEYS[1], int(keep)) end
return reply('ok', answer)
