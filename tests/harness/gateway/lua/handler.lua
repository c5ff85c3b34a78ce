-- A request's work, each part timed by the thread's own CPU clock: what a profile should find, without a profiler.
local ffi = require "ffi"
local meter = require "meter"
local text, numbers, rows, patterns = require "text", require "numbers", require "rows", require "patterns"
local timed = meter.timed

-- Four functions with the same body: two are never compiled, two always are.
local function interpreted_sixty(count) local x = 0 for i = 1, count do x = x + i % 7 end return x end
local function interpreted_forty(count) local x = 0 for i = 1, count do x = x + i % 7 end return x end
local function compiled_sixty(count) local x = 0 for i = 1, count do x = x + i % 7 end return x end
local function compiled_forty(count) local x = 0 for i = 1, count do x = x + i % 7 end return x end
jit.off(interpreted_sixty)
jit.off(interpreted_forty)

local handler = {}

function handler.serve()
  timed("build_lines", text.build_lines, 300)
  timed("compiled_mix", numbers.compiled_mix, 60000)
  timed("interpreted_mix", numbers.interpreted_mix, 6000)
  timed("sort_rows", rows.sort_rows, 200)
  timed("match_subject", patterns.match_subject, 150)
  timed("copy_document", patterns.copy_document, 10)
  ngx.say("ok")
end

function handler.interpreted_60_40()
  timed("interpreted_sixty", interpreted_sixty, 60000)
  timed("interpreted_forty", interpreted_forty, 40000)
  ngx.say("ok")
end

function handler.compiled_60_40()
  timed("compiled_sixty", compiled_sixty, 600000)
  timed("compiled_forty", compiled_forty, 400000)
  ngx.say("ok")
end

handler.truth = meter.truth

function handler.backtrack()
  timed("backtrack", patterns.backtrack, 200)
  ngx.say("ok")
end

function handler.abi()
  ngx.say(jit.version, " gc64=", tostring(ffi.abi("gc64")), " jit=", tostring((jit.status())))
end

return handler
