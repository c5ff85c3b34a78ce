-- Table work: small tables made and sorted through a callback.
local insert, sort = table.insert, table.sort

local function by_key(a, b)
  return a.key < b.key
end

local function make_rows(count)
  local rows, key = {}, 12345
  for i = 1, count do
    key = (key * 1103515245 + 12345) % 2147483648
    insert(rows, { key = key, value = i })
  end
  return rows
end

local rows = {}

function rows.sort_rows(count)
  local sorted = make_rows(count)
  sort(sorted, by_key)
  return sorted[1].value
end

return rows
