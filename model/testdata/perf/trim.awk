# Keeps the first two samples of each stack of names, at most MAX samples, in their order.
BEGIN { RS = ""; ORS = "\n\n" }
{ key = $0; sub(/^[^\n]*\n/, "", key); gsub(/(^|\n)[ \t]*[0-9a-f]+ /, "\n", key); gsub(/\+0x[0-9a-f]+/, "", key);
  if (seen[key]++ < 2 && n < MAX) { n++; print } }
