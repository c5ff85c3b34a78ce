-- Integer work: the same loop once compiled and once left to the interpreter.
local bit = require "bit"
local bxor, band = bit.bxor, bit.band

local function mix(x, i)
  x = bxor(x, i)
  return band(x + band(x, 0xffff) * 3, 0x7fffffff)
end

local function mix_slowly(x, i)
  return band(bxor(x, i) + i * 3, 0x7fffffff)
end

local numbers = {}

function numbers.compiled_mix(count)
  local x = 1
  for i = 1, count do
    x = mix(x, i)
  end
  return x
end

function numbers.interpreted_mix(count)
  local x = 1
  for i = 1, count do
    x = mix_slowly(x, i)
  end
  return x
end

jit.off(mix_slowly)
jit.off(numbers.interpreted_mix)

return numbers
