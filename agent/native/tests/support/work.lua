-- Work whose functions time themselves by the thread's own CPU clock: what a profile should find.
local ffi = require "ffi"
ffi.cdef[[
  struct work_timespec { long s; long ns; };
  int clock_gettime(int clock, struct work_timespec *at);
]]
local at = ffi.new("struct work_timespec")
local spent = {}

local function cpu_s()
  ffi.C.clock_gettime(3, at)
  return tonumber(at.s) + tonumber(at.ns) / 1e9
end

local function interpreted_sixty(n) local x = 0 for i = 1, n do x = x + i % 7 end return x end
local function interpreted_forty(n) local x = 0 for i = 1, n do x = x + i % 7 end return x end
jit.off(interpreted_sixty)
jit.off(interpreted_forty)

local function guarded(t, i)
  local v = t[i % 64 + 1]
  if v > 31 then return v * 2 end
  return v + 1
end

local function compiled(n)
  local t, sum = {}, 0
  for i = 1, 64 do t[i] = i end
  for i = 1, n do sum = sum + guarded(t, i) end
  return sum
end

local function joined(n)
  local t = {}
  for i = 1, n do t[#t + 1] = string.format("%d:%s", i, "abc") end
  return #table.concat(t)
end

local function sorted(n)
  local t = {}
  for i = 1, n do t[i] = (i * 7919) % 1009 end
  table.sort(t, function(a, b) return a < b end)
  return t[1]
end

local function walked(n)
  local t, sum = {}, 0
  for i = 1, 100 do t["key" .. i] = i end
  for _ = 1, n do
    for _, v in pairs(t) do sum = sum + v end
  end
  return sum
end

local function timed(name, work, n)
  local start = cpu_s()
  work(n)
  spent[name] = (spent[name] or 0) + cpu_s() - start
end

local function round()
  timed("compiled", compiled, 1500000)
  timed("interpreted_sixty", interpreted_sixty, 60000)
  timed("interpreted_forty", interpreted_forty, 40000)
  timed("joined", joined, 4000)
  timed("sorted", sorted, 2000)
  timed("walked", walked, 1500)
end

local function deep(depth)
  if depth == 0 then round() return 1 end
  local below = deep(depth - 1)
  return below
end

local function wrapped()
  local run = coroutine.wrap(function() round() coroutine.yield() round() end)
  run()
  run()
end

local stop = os.time() + tonumber(arg[1])
while os.time() < stop do
  round()
  wrapped()
  assert(pcall(round))
  deep(20)
end
for name, seconds in pairs(spent) do print(name, seconds) end
