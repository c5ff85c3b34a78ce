-- Interpreted work.
local meter = require "meter"

local function count_words(count)
  local words = 0
  for i = 1, count do words = words + i % 7 end
  return words
end
jit.off(count_words)

local CountWords = {}

function CountWords:access()
  meter.timed("count_words", count_words, 20000)
end

return CountWords
