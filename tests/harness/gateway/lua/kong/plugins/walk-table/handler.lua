-- A table walked by compiled code: it calls a helper of the interpreter that has no frame of its own.
local meter = require "meter"

local entries = {}
for i = 1, 200 do entries["key" .. i] = i end

local function walk_table(count)
  local sum = 0
  for _ = 1, count do
    for _, value in pairs(entries) do sum = sum + value end
  end
  return sum
end

local WalkTable = {}

function WalkTable:access()
  meter.timed("walk_table", walk_table, 400)
end

return WalkTable
