-- Coroutines in coroutines, each of which yields before it works.
local meter = require "meter"

local function nested_work(count)
  local lines = {}
  for i = 1, count do lines[i] = string.format("%d:%s", i, "abc") end
  return #table.concat(lines)
end

local function nest(depth)
  coroutine.yield()
  if depth == 0 then
    meter.timed("nested_work", nested_work, 1500)
    return
  end
  local run = coroutine.wrap(nest)
  run(depth - 1)
  run()
end

local NestCoroutines = {}

function NestCoroutines:access()
  local run = coroutine.wrap(nest)
  run(3)
  for _ = 1, 4 do run() end
end

return NestCoroutines
