-- Compiled work, with a function that is inlined.
local meter = require "meter"
local bxor, band = bit.bxor, bit.band

local function mix(x, i)
  return band(bxor(x, i) * 3 + i, 0x7fffffff)
end

local function mix_bits(count)
  local x = 1
  for i = 1, count do x = mix(x, i) end
  return x
end

local MixBits = {}

function MixBits:access()
  meter.timed("mix_bits", mix_bits, 100000)
end

return MixBits
