-- Plugins as Kong runs them: each access handler in a coroutine of its own, log handlers plainly, work put off to timers.
local meter = require "meter"

local plugins = {}
for _, name in ipairs { "count-words", "mix-bits", "walk-table", "spawn-threads", "nest-coroutines", "log-json" } do
  local plugin = require("kong.plugins." .. name .. ".handler")
  plugin.name = name
  plugins[#plugins + 1] = plugin
end

-- `?times=3` does the work of every plugin three times, `?times=3&only=mix-bits` that of one.
local function times(plugin)
  local only = ngx.var.arg_only
  if only and only ~= plugin.name then return 1 end
  return tonumber(ngx.var.arg_times) or 1
end

local function put_off_work(count)
  local x = 0
  for i = 1, count do x = x + i % 11 end
  return x
end
jit.off(put_off_work)

local waiting = false
local function on_timer(premature)
  waiting = false
  if premature then return end
  ngx.sleep(0.001)
  meter.timed("put_off_work", put_off_work, 30000)
end

local kong = {}

function kong.access()
  for _, plugin in ipairs(plugins) do
    for _ = 1, plugin.access and times(plugin) or 0 do
      local run = coroutine.create(plugin.access)
      local ok, problem = coroutine.resume(run, plugin)
      if not ok then error(problem) end
    end
  end
end

function kong.log()
  for _, plugin in ipairs(plugins) do
    for _ = 1, plugin.log and times(plugin) or 0 do plugin:log() end
  end
  -- At most one timer waits, so that an idle gateway does nothing.
  if not waiting then
    waiting = true
    ngx.timer.at(0.005, on_timer)
  end
end

return kong
