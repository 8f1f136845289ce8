"""The Redis ledger's verbs in Lua: one script each, over a few shared functions.

In charge of what happens inside the server, atomically. Every script gets the keys of `redis.KEYS`, then the epoch, the
clock skew and the verb's own arguments, and answers with a list of strings: `ok`, `no`, `denied …`, `unknown SCOPE`, or
`lost` if the server is not the one the caller knew. Amounts travel and rest as decimal strings: Lua's doubles are exact
to 2**53, but JSON and `tostring` keep 14 digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

FOLD_AT = 1000
"""Rows of the log that are summed into `base` at once: some hundred microseconds of the server, and 60 KB of memory."""

PIECE = 200
"""Holds that one script goes through: a few milliseconds, in which the server answers nobody else."""

_SHARED = """
local EPOCH, SCOPES, COUNTERS, HOLDS, LEASES, UNCERTAIN, LOG, BASE, LATE, CAPS, TURN = unpack(KEYS)
local epoch, seen = string.match(ARGV[1], '^(%S+) (%d+)$')
if redis.call('GET', EPOCH) ~= epoch then return {'lost'} end
if tonumber(redis.call('GET', TURN) or '0') < tonumber(seen) then return {'lost'} end
local time = redis.call('TIME')
local NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[2])

local function text(n) return string.format('%.0f', n) end

local function window_of(span)
  if span == '' then return '' end
  local days = math.floor(NOW / 86400)
  local hour = math.floor((NOW - days * 86400) / 3600)
  -- Days since 1970 to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  if span == 'month' then return string.format('%04d-%02d', year, month) end
  if span == 'day' then return string.format('%04d-%02d-%02d', year, month, day) end
  return string.format('%04d-%02d-%02dT%02d', year, month, day, hour)
end

local function scope_of(key)
  local raw = redis.call('HGET', SCOPES, key)
  return raw and cjson.decode(raw)
end

local function counts(key, window)
  local at = key .. '|' .. window .. '|'
  local found = redis.call('HMGET', COUNTERS, at .. 's', at .. 'h', at .. 'u')
  return tonumber(found[1] or 0), tonumber(found[2] or 0), tonumber(found[3] or 0)
end

local function sums()
  local total = {}
  for _, row in ipairs(redis.call('LRANGE', LOG, 0, -1)) do
    local at, s, h, u = string.match(row, '^(.*|)(-?%d+)|(-?%d+)|(-?%d+)$')
    total[at .. 's'] = (total[at .. 's'] or 0) + tonumber(s)
    total[at .. 'h'] = (total[at .. 'h'] or 0) + tonumber(h)
    total[at .. 'u'] = (total[at .. 'u'] or 0) + tonumber(u)
  end
  return total
end

local function fold()
  for field, value in pairs(sums()) do redis.call('HINCRBY', BASE, field, text(value)) end
  redis.call('DEL', LOG)
end

local function enter(key, window, s, h, u)
  redis.call('INCR', TURN)
  local at = key .. '|' .. window .. '|'
  if s ~= 0 then redis.call('HINCRBY', COUNTERS, at .. 's', text(s)) end
  -- This one always, also for a hold of nothing: without any counter the ledger counts as torn. A zero has no sign.
  redis.call('HINCRBY', COUNTERS, at .. 'h', text(h + 0))
  if u ~= 0 then redis.call('HINCRBY', COUNTERS, at .. 'u', text(u)) end
  if redis.call('RPUSH', LOG, at .. text(s) .. '|' .. text(h) .. '|' .. text(u)) >= FOLD_AT then fold() end
end

local function load(id)
  local raw = redis.call('HGET', HOLDS, id)
  return raw and cjson.decode(raw)
end

local function save(id, rows)
  local open, doubtful, late = false, false, false
  for _, row in ipairs(rows) do
    if row.state == 'held' then open = true end
    if row.uncertain ~= '0' then doubtful = true end
    if row.state == 'reconciled' then late = true end
  end
  if open or doubtful or late then redis.call('HSET', HOLDS, id, cjson.encode(rows))
  else redis.call('HDEL', HOLDS, id) end
  if not open then redis.call('ZREM', LEASES, id) end
  if doubtful then redis.call('ZADD', UNCERTAIN, 'NX', string.format('%.6f', NOW), id)
  else redis.call('ZREM', UNCERTAIN, id) end
  if late then redis.call('ZADD', LATE, 'NX', string.format('%.6f', NOW), id) else redis.call('ZREM', LATE, id) end
end

local function cap_of(key, scope)
  return math.min(tonumber(scope.cap), tonumber(redis.call('HGET', CAPS, key) or scope.cap))
end

local function clear(row, settled)
  enter(row.scope, row.window, settled, 0, -tonumber(row.uncertain))
  row.uncertain = '0'
  -- Who holds it may still be at work, and settle late.
  row.state = row.state == 'swept' and 'reconciled' or 'closed'
end
""".replace("FOLD_AT", str(FOLD_AT))

_VERBS = {
    "configure": """
for i = 3, #ARGV, 5 do
  local known = scope_of(ARGV[i])
  if known and (known.unit ~= ARGV[i + 1] or known.span ~= ARGV[i + 3]) then
    return {'mismatch', ARGV[i], known.unit, known.span}
  end
end
for i = 3, #ARGV, 5 do
  local scope = {unit = ARGV[i + 1], cap = ARGV[i + 2], span = ARGV[i + 3], release = ARGV[i + 4]}
  redis.call('HSET', SCOPES, ARGV[i], cjson.encode(scope))
end
return {'ok'}
""",
    "scopes": """
local answer, found = {'ok'}, redis.call('HGETALL', SCOPES)
for i = 1, #found, 2 do
  local scope = cjson.decode(found[i + 1])
  for _, part in ipairs({found[i], scope.unit, text(cap_of(found[i], scope)), scope.span, scope.release}) do
    answer[#answer + 1] = part
  end
end
return answer
""",
    "set_cap": """
if not scope_of(ARGV[3]) then return {'unknown', ARGV[3]} end
if ARGV[4] then redis.call('HSET', CAPS, ARGV[3], ARGV[4]) else redis.call('HDEL', CAPS, ARGV[3]) end
return {'ok'}
""",
    "reserve": """
local id = ARGV[3]
if redis.call('HEXISTS', HOLDS, id) == 1 then return {'ok'} end
if NOW > tonumber(ARGV[5]) then return {'late', text(NOW)} end
if redis.call('EXISTS', COUNTERS) == 0 and redis.call('EXISTS', LOG, BASE) > 0 then return {'torn'} end
local rows = {}
for i = 6, #ARGV, 3 do
  local key, asked = ARGV[i], tonumber(ARGV[i + 1])
  local scope = scope_of(key)
  if not scope then return {'unknown', key} end
  local window, cap = window_of(scope.span), cap_of(key, scope)
  if ARGV[i + 2] ~= '' then cap = math.min(cap, tonumber(ARGV[i + 2])) end
  local s, h, u = counts(key, window)
  local free = cap - s - h - u
  if asked > free then
    return {'denied', key, scope.unit, ARGV[i + 1], text(math.max(0, free)), text(cap), text(h), window}
  end
  rows[#rows + 1] = {scope = key, window = window, amount = ARGV[i + 1], uncertain = '0', state = 'held'}
end
for _, row in ipairs(rows) do enter(row.scope, row.window, 0, tonumber(row.amount), 0) end
redis.call('HSET', HOLDS, id, cjson.encode(rows))
redis.call('ZADD', LEASES, string.format('%.6f', NOW + tonumber(ARGV[4])), id)
return {'ok', redis.call('GET', TURN)}
""",
    "heartbeat": """
local id = ARGV[3]
local known = redis.call('ZSCORE', LEASES, id)
if not known then return {'no'} end
redis.call('ZADD', LEASES, string.format('%.6f', math.max(tonumber(known), NOW + tonumber(ARGV[4]))), id)
return {'ok'}
""",
    "settle": """
local id, rows, done = ARGV[3], load(ARGV[3]), false
if not rows then return {'no'} end
local settlements = {}
for i = 4, #ARGV, 3 do settlements[ARGV[i]] = {ARGV[i + 1], ARGV[i + 2]} end
for _, row in ipairs(rows) do
  if row.state ~= 'closed' then
    local settlement = settlements[row.scope] or {'0', row.amount}
    local held = row.state == 'held' and -tonumber(row.amount) or 0
    enter(row.scope, row.window, tonumber(settlement[1]), held, tonumber(settlement[2]) - tonumber(row.uncertain))
    row.uncertain = settlement[2]
    row.state = 'closed'
    done = true
  end
end
if not done then return {'no'} end
save(id, rows)
return {'ok'}
""",
    "reconcile_hold": """
local id, rows, done = ARGV[3], load(ARGV[3]), false
if not rows then return {'no'} end
local settled = {}
for i = 4, #ARGV, 2 do settled[ARGV[i]] = tonumber(ARGV[i + 1]) end
for _, row in ipairs(rows) do
  if row.uncertain ~= '0' and settled[row.scope] then
    clear(row, settled[row.scope])
    done = true
  end
end
if not done then return {'no'} end
save(id, rows)
return {'ok'}
""",
    "reconcile_scope": """
local key, settled = ARGV[3], tonumber(ARGV[4])
local scope = scope_of(key)
if not scope then return {'unknown', key} end
local window, before, from, done = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
if window == '*' then window = window_of(scope.span) end
local ids = redis.call('ZRANGEBYSCORE', UNCERTAIN, '-inf', before, 'LIMIT', from, PIECE)
local next_from = from
for _, id in ipairs(ids) do
  local rows = load(id)
  for _, row in ipairs(rows) do
    if row.scope == key and row.window == window and row.uncertain ~= '0' then
      clear(row, done and 0 or settled)
      done = true
    end
  end
  save(id, rows)
  if redis.call('ZSCORE', UNCERTAIN, id) then next_from = next_from + 1 end
end
return {done and 'ok' or 'no', #ids < PIECE and 'end' or text(next_from)}
""",
    "balance": """
local scope = scope_of(ARGV[3])
if not scope then return {'unknown', ARGV[3]} end
local window = ARGV[4] or window_of(scope.span)
local s, h, u = counts(ARGV[3], window)
return {'ok', scope.unit, text(cap_of(ARGV[3], scope)), text(s), text(h), text(u), window}
""",
    "sweep": """
local changed, from = 0, tonumber(ARGV[3])
local ids = redis.call('ZRANGE', UNCERTAIN, from, from + PIECE - 1)
local next_from = from
for _, id in ipairs(ids) do
  local since, rows = redis.call('ZSCORE', UNCERTAIN, id), load(id)
  for _, row in ipairs(rows) do
    local release = scope_of(row.scope).release
    if row.uncertain ~= '0' and release ~= '' and tonumber(since) + tonumber(release) <= NOW then
      clear(row, 0)
      changed = changed + 1
    end
  end
  save(id, rows)
  if redis.call('ZSCORE', UNCERTAIN, id) then next_from = next_from + 1 end
end
local given_up = string.format('%.6f', NOW - 604800)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LATE, '-inf', given_up, 'LIMIT', 0, PIECE)) do
  local rows = load(id)
  for _, row in ipairs(rows) do if row.state == 'reconciled' then row.state = 'closed' end end
  save(id, rows)
end
local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', string.format('%.6f', NOW), 'LIMIT', 0, PIECE)
for _, id in ipairs(expired) do
  local rows = load(id)
  for _, row in ipairs(rows) do
    enter(row.scope, row.window, 0, -tonumber(row.amount), tonumber(row.amount))
    row.uncertain = row.amount
    row.state = 'swept'
    changed = changed + 1
  end
  save(id, rows)
end
return {'ok', text(changed), (#ids < PIECE and #expired < PIECE) and 'end' or text(next_from)}
""",
    "uncertain": """
local scope = scope_of(ARGV[3])
if not scope then return {'unknown', ARGV[3]} end
local window, from = ARGV[4], tonumber(ARGV[5])
if window == '*' then window = window_of(scope.span) end
local ids = redis.call('ZRANGE', UNCERTAIN, from, from + PIECE - 1)
local answer = {'ok', #ids < PIECE and 'end' or text(from + PIECE)}
for _, id in ipairs(ids) do
  for _, row in ipairs(load(id)) do
    if row.scope == ARGV[3] and row.window == window and row.uncertain ~= '0' then
      answer[#answer + 1] = row.state == 'swept' and 'lost' or 'aborted'
      answer[#answer + 1] = row.uncertain
      answer[#answer + 1] = redis.call('ZSCORE', UNCERTAIN, id)
    end
  end
end
return answer
""",
    "rebuild": """
fold()
local places, true_, was = {}, {}, {}
local function collect(hash, into)
  local found = redis.call('HGETALL', hash)
  for i = 1, #found, 2 do
    into[found[i]] = tonumber(found[i + 1])
    places[string.sub(found[i], 1, -2)] = true
  end
end
collect(BASE, true_)
collect(COUNTERS, was)
local answer = {'ok'}
for place in pairs(places) do
  local before, after, differs = {}, {}, false
  for i, kind in ipairs({'s', 'h', 'u'}) do
    before[i], after[i] = was[place .. kind] or 0, true_[place .. kind] or 0
    if before[i] ~= after[i] then
      differs = true
      redis.call('HSET', COUNTERS, place .. kind, text(after[i]))
    end
  end
  redis.call('HSETNX', COUNTERS, place .. 'h', text(after[2]))
  if differs then
    local scope, window = string.match(place, '^(.*)|([^|]*)|$')
    for _, part in ipairs({scope, window, text(before[1]), text(before[2]), text(before[3]),
                           text(after[1]), text(after[2]), text(after[3])}) do
      answer[#answer + 1] = part
    end
  end
end
return answer
""",
}


def _digested(script: str) -> tuple[str, str]:
    return script, hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


SCRIPTS: Mapping[str, tuple[str, str]] = {
    verb: _digested((_SHARED + body).replace("PIECE", str(PIECE))) for verb, body in _VERBS.items()
}
"""Verb → script and its digest."""
