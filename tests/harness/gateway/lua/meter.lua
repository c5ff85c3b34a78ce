-- What functions cost by the thread's own CPU clock: the truth that a profile is held against.
local ffi = require "ffi"
ffi.cdef[[
  struct gateway_timespec { long s; long ns; };
  int clock_gettime(int clock, struct gateway_timespec *at);
]]

local CLOCK_THREAD_CPUTIME_ID = 3
local at = ffi.new("struct gateway_timespec")
local spent = {}

local function cpu_s()
  ffi.C.clock_gettime(CLOCK_THREAD_CPUTIME_ID, at)
  return tonumber(at.s) + tonumber(at.ns) / 1e9
end

local meter = {}

-- `work` must not yield: what other requests did meanwhile would be counted as its own.
function meter.timed(name, work, count)
  local start = cpu_s()
  local result = work(count)
  spent[name] = (spent[name] or 0) + (cpu_s() - start)
  return result
end

-- One line a function: the worker's pid, the name, CPU seconds since the start or the last `?reset=1`.
function meter.truth()
  for name, seconds in pairs(spent) do
    ngx.say(string.format("%d %s %.6f", ngx.worker.pid(), name, seconds))
  end
  ngx.say(string.format("%d end", ngx.worker.pid()))
  if ngx.var.arg_reset then spent = {} end
end

return meter
