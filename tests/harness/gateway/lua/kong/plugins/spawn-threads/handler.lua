-- Light threads that sleep before they work: nobody who called them is left on the machine stack.
local meter = require "meter"

local function spawned_work(count)
  local x = 0
  for i = 1, count do x = x + i % 5 end
  return x
end
jit.off(spawned_work)

local function body()
  ngx.sleep(0.001)
  meter.timed("spawned_work", spawned_work, 8000)
end

local SpawnThreads = {}

function SpawnThreads:access()
  local first = ngx.thread.spawn(body)
  local second = ngx.thread.spawn(body)
  ngx.thread.wait(first)
  ngx.thread.wait(second)
end

return SpawnThreads
