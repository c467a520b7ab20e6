-- One operation of RedisStore. KEYS[1] is the prefix of all keys: its hash tag keeps them on one
-- node of a cluster. ARGV[1] names the operation, ARGV[2] has its arguments as JSON.
-- Keys of each kind of work: an entry for each piece of work, and its place in one of three sets:
-- `waiting` by rank, `due` by the time when it waits again, `leases` by the end of its lease.
-- Numbers that Redis returned stay texts: Lua would write them with 14 digits.
local prefix, given = KEYS[1], cjson.decode(ARGV[2])
local clock = redis.call('time')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local function key(...) return prefix .. ':' .. table.concat({...}, ':') end
local function entry_key(kind, name) return key(kind, 'work', name) end

-- Members begin with the time of arrival, so that equal ranks are in the order of arrival.
local function read_entry(kind, name)
  local found = redis.call('hmget', entry_key(kind, name),
    'member', 'rank', 'owner', 'target', 'price', 'cost', 'holder', 'work')
  if not found[1] then return nil end
  return {kind = kind, name = name, member = found[1], rank = found[2], owner = found[3],
    target = found[4], price = found[5], cost = found[6], holder = found[7], work = found[8]}
end
local function name_of(member) return string.sub(member, 18) end

local function count_entry(entry, sign)
  local totals = key(entry.kind, 'totals')
  redis.call('hincrby', totals, 'owner:' .. entry.owner, sign)
  local price = (sign < 0 and '-' or '') .. entry.price
  redis.call('hincrbyfloat', totals, 'target:' .. entry.target, price)
  if redis.call('exists', key(entry.kind, 'waiting')) == 0 then redis.call('del', totals) end
end
local function add_waiting(entry)
  if redis.call('zadd', key(entry.kind, 'waiting'), entry.rank, entry.member) == 1 then
    count_entry(entry, 1)
  end
end
local function remove_waiting(entry)
  local removed = redis.call('zrem', key(entry.kind, 'waiting'), entry.member)
  if removed == 1 then count_entry(entry, -1) end
  return removed
end

-- Returns all work of a set whose time has come to the waiting work.
local function return_due(kind, set)
  for _, member in ipairs(redis.call('zrangebyscore', key(kind, set), '-inf', now)) do
    redis.call('zrem', key(kind, set), member)
    local entry = read_entry(kind, name_of(member))
    redis.call('hdel', entry_key(kind, entry.name), 'holder')
    add_waiting(entry)
  end
end

local function put(work)
  local entry = entry_key(work.kind, work.name)
  if redis.call('exists', entry) == 1 then return end
  local turns = key(work.kind, 'turns')
  local begun = tonumber(redis.call('get', key(work.kind, 'clock')) or '0')
  local rank = math.max(begun, tonumber(redis.call('hget', turns, work.owner) or '0'))
  redis.call('hset', turns, work.owner, rank + work.cost)
  redis.call('hset', entry, 'member', work.member, 'rank', rank, 'owner', work.owner,
    'target', work.target, 'price', work.price, 'cost', work.cost, 'work', work.work)
  add_waiting(read_entry(work.kind, work.name))
end

local function add_text(name, text, expires, owner)
  if redis.call('hsetnx', key('text', name), 'text', text) == 1 then
    redis.call('hset', key('text', name), 'owner', owner)
    redis.call('zadd', key('expiries'), expires, name)
    return true
  end
end

local operations = {}

function operations.add_text()
  add_text(given.name, given.text, given.expires, '')
  return redis.call('hget', key('text', given.name), 'text')
end

function operations.add_jobs()
  local texts = {}
  for number, job in ipairs(given.jobs) do
    local work = job.work
    if add_text(work.name, job.text, job.expires, work.owner) then
      redis.call('zadd', key('owned', work.owner), work.since, work.name)
      put(work)
    end
    texts[number] = redis.call('hget', key('text', work.name), 'text')
  end
  return texts
end

function operations.swap_text()
  local text = key('text', given.name)
  if redis.call('hget', text, 'text') ~= given.old then return 0 end
  redis.call('hset', text, 'text', given.new)
  redis.call('zadd', key('expiries'), given.expires, given.name)
  if given.work then put(given.work) end
  return 1
end

function operations.get_text() return redis.call('hget', key('text', given.name), 'text') end

function operations.list_expired()
  return redis.call('zrangebyscore', key('expiries'), '-inf', given['until'])
end

function operations.delete_text()
  local owner = redis.call('hget', key('text', given.name), 'owner')
  if owner then redis.call('zrem', key('owned', owner), given.name) end
  redis.call('zrem', key('expiries'), given.name)
  redis.call('del', key('text', given.name))
end

function operations.list_texts()
  local texts, offset = {}, 0
  while true do
    local found = redis.call('zrange', key('owned', given.owner), given.since, '-inf', 'byscore',
      'rev', 'limit', offset, 100, 'withscores')
    if #found == 0 then return texts end
    for i = 1, #found, 2 do
      if tonumber(found[i + 1]) < given.since or found[i] < given.name then
        texts[#texts + 1] = redis.call('hget', key('text', found[i]), 'text')
        if #texts == given.most then return texts end
      end
    end
    offset = offset + 100
  end
end

function operations.put_work() put(given.work) end

function operations.withdraw_work()
  local entry = read_entry(given.kind, given.name)
  if not entry then return end
  if remove_waiting(entry) + redis.call('zrem', key(given.kind, 'due'), entry.member) > 0 then
    redis.call('hincrbyfloat', key(given.kind, 'turns'), entry.owner, '-' .. entry.cost)
    redis.call('del', entry_key(given.kind, given.name))
  end
end

function operations.take_work()
  local kind, closed, offset = given.kind, {}, 0
  for _, lane in ipairs(given.closed) do closed[lane] = true end
  return_due(kind, 'leases')
  return_due(kind, 'due')
  while true do
    local members = redis.call('zrange', key(kind, 'waiting'), offset, offset + 99)
    if #members == 0 then return nil end
    for _, member in ipairs(members) do
      local entry = read_entry(kind, name_of(member))
      if not closed[entry.owner .. '\n' .. entry.target] then
        remove_waiting(entry)
        redis.call('zadd', key(kind, 'leases'), now + given.lease, member)
        redis.call('hset', entry_key(kind, entry.name), 'holder', given.holder)
        local begun = tonumber(redis.call('get', key(kind, 'clock')) or '0')
        if tonumber(entry.rank) > begun then redis.call('set', key(kind, 'clock'), entry.rank) end
        return {entry.work, redis.call('hincrby', entry_key(kind, entry.name), 'attempts', 1)}
      end
    end
    offset = offset + 100
  end
end

function operations.renew_work()
  local lost = {}
  for name, holder in pairs(given.leases) do
    local entry = read_entry(given.kind, name)
    if entry and entry.holder == holder then
      redis.call('zadd', key(given.kind, 'leases'), now + given.lease, entry.member)
    else
      lost[#lost + 1] = name
    end
  end
  return lost
end

function operations.end_work()
  local entry = read_entry(given.kind, given.name)
  if not entry or entry.holder ~= given.holder then return end
  redis.call('zrem', key(given.kind, 'leases'), entry.member)
  if given.again then
    redis.call('hdel', entry_key(given.kind, given.name), 'holder')
    if given.again > 0 then
      redis.call('zadd', key(given.kind, 'due'), now + given.again, entry.member)
    else
      add_waiting(entry)
    end
  else
    redis.call('del', entry_key(given.kind, given.name))
  end
end

function operations.count_waiting()
  if given.owner then
    return tonumber(redis.call('hget', key(given.kind, 'totals'), 'owner:' .. given.owner) or '0')
  end
  return redis.call('zcard', key(given.kind, 'waiting'))
end

function operations.find_places()
  local places, waiting = {}, key(given.kind, 'waiting')
  for _, name in ipairs(given.names) do
    local entry = read_entry(given.kind, name)
    local rank = entry and redis.call('zrank', waiting, entry.member)
    if rank then
      local total = redis.call('hget', key(given.kind, 'totals'), 'target:' .. entry.target)
      places[#places + 1] = {name, rank + 1, redis.call('zcard', waiting), total}
    end
  end
  return places
end

return operations[ARGV[1]]()
