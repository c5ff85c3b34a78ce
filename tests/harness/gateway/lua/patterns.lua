-- Work in C that Lua calls: PCRE (compiled, cached) and the JSON library.
local cjson = require "cjson"
local find = ngx.re.find

local subject = string.rep("user=alice;role=admin;path=/a/b/c;", 8)
local document = { numbers = { 1, 2, 3, 4, 5, 6 }, greeting = { x = "hello", y = "world" }, items = {} }
for i = 1, 20 do
  document.items[i] = { id = i, name = "n" .. i }
end

local patterns = {}

function patterns.match_subject(count)
  local sum = 0
  for _ = 1, count do
    sum = sum + (find(subject, [[role=(\w+);path=(/[a-z/]+);$]], "jo") or 0)
  end
  return sum
end

-- PCRE's own interpreter: what its compiler makes has no unwind data.
function patterns.backtrack(count)
  local sum = 0
  for _ = 1, count do
    sum = sum + (find(subject, [[\w+;\w+;\w+$]]) or 0)
  end
  return sum
end

function patterns.copy_document(count)
  local encoded
  for _ = 1, count do
    encoded = cjson.encode(document)
    cjson.decode(encoded)
  end
  return #encoded
end

return patterns
