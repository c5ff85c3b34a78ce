-- Work in the log phase, in C that Lua calls.
local meter = require "meter"
local cjson = require "cjson"

local entry = { request = { method = "GET", uri = "/plugins", headers = {} }, latencies = { kong = 3, proxy = 20 } }
for i = 1, 20 do entry.request.headers["x-header-" .. i] = "value " .. i end

local function log_json(count)
  local size = 0
  for _ = 1, count do size = size + #cjson.encode(entry) end
  return size
end

local LogJson = {}

function LogJson:log()
  meter.timed("log_json", log_json, 15)
end

return LogJson
