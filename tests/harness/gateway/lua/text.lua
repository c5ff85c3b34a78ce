-- String work: formatting, joining, substituting.
local concat, format, gsub = table.concat, string.format, string.gsub

local function build_line(i)
  return format("%05d-%s-%x", i, "abcdef", i * 7)
end

local text = {}

function text.build_lines(count)
  local lines = {}
  for i = 1, count do
    lines[i] = build_line(i)
  end
  return #gsub(concat(lines, ","), "a(b)c", "%1x")
end

return text
