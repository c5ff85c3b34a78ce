# Takes the agent from stdin (or the kept one), checks it, starts it, and becomes a channel to it.
# Whatever fails removes what it has made. Arguments: folder, bytes on stdin, how they come (gzip, plain,
# kept), checksum and size of the program, its BLAKE3 hash, the name to keep it under (or none), whether
# sudo may be tried, how the agent is run (file, python3, perl). For each 32 KiB that it took it says so, and no more
# than what takes a second is ever under way: what is interrupted ends at once. busybox
# reads ahead in head, so there dd takes the pieces. The rules for lines are those of prepare.sh.
umask 077; set -f; d=$1; n=$2; how=$3; sum=$4; size=$5; hash=$6; keep=$7; sudo=$8; via=$9; r=${d%/*};
fail() { rm -f "$d/agent" "$d/socket"; rmdir "$d" 2>/dev/null; rmdir "$r" 2>/dev/null;
    echo "fleetflame: $1: $2" >&2; exit 9; };
mkdir "$r" 2>/dev/null;
e=$(mkdir "$d" 2>&1) || { mkdir "$r" 2>/dev/null; e=$(mkdir "$d" 2>&1); } || fail folder "$e";
trap "fail upload interrupted" HUP INT TERM;
piece() { head -c "$1"; };
exact() { [ "$(printf ab | { piece 1 >/dev/null; piece 1; })" = b ]; };
exact || piece() { dd bs="$1" count=1 iflag=fullblock 2>/dev/null; };
if [ "$how" != kept ] && ! exact; then fail tools "neither head nor dd takes as many bytes as it is told and no more"; fi;
took() { i=$n; while [ "$i" -gt 0 ]; do k=32768; if [ "$i" -lt $k ]; then k=$i; fi;
    piece "$k" || return 1; echo fleetflame-took >&3 || return 1; i=$((i-k)); done; };
exec 3>&1;
case $how in
    gzip) e=$({ took | gunzip -c >"$d/agent"; } 2>&1);;
    plain) e=$({ took >"$d/agent"; } 2>&1);;
    kept) e=$({ ln "$r/$keep" "$d/agent" || cp "$r/$keep" "$d/agent"; } 2>&1);;
esac;
exec 3>&-;
got=$(cksum <"$d/agent" 2>&1);
if [ "$got" != "$sum $size" ]; then fail upload "checksum and size are $got, not $sum $size; $e"; fi;
chmod 700 "$d/agent";
if [ "$how" != kept ] && [ "$keep" != none ]; then ln -f "$d/agent" "$r/$keep" 2>/dev/null; fi;
trap - HUP INT TERM; ok=no;
if [ "$sudo" = yes ] && ! "$d/agent" check --unrestricted >/dev/null 2>&1; then
    if e=$(sudo -n "$d/agent" stdio --dir "$d" --blake3 "$hash" </dev/null 2>&1);
    then ok=yes; else echo "fleetflame: sudo: $e" >&2; fi;
fi;
if [ $ok = no ]; then
    e=$(run stdio --dir "$d" --blake3 "$hash" </dev/null 2>&1) || fail start "$e";
fi;
if [ "$via" = file ]; then exec "$d/agent" attach "$d"; fi;
run attach "$d"
