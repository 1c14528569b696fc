# Runs a command within a limit of memory, and measures what it had resident. To be sourced by the scripts here.

within=() group=

# limit_memory LIMIT: 2G, 512M, or none. By systemd-run --user, or by a control group (version 2 or 1) where this user may make one;
# with neither commands run unlimited, and it says so.
limit_memory() {
  if [ "$1" = none ]; then
    echo "no limit"
  elif systemd-run --user --scope --quiet true 2>/dev/null; then
    echo "limit $1 by systemd-run"
    within=(systemd-run --user --scope --quiet -p MemoryMax="$1" -p MemorySwapMax=0)
  elif make_group "$1"; then
    echo "limit $1 by a control group"
    within=(bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group")
  else
    lift_limit
    echo "no limit: neither systemd-run --user nor a control group of one's own is to be had"
  fi
}

# The kernel makes the files of a group: without them the folder is none.
make_group() {
  local above=/sys/fs/cgroup limit=memory.max swap=memory.swap.max
  [ -e "$above/cgroup.controllers" ] || { above+=/memory limit=memory.limit_in_bytes swap=memory.memsw.limit_in_bytes; }
  [ -e "$above/cgroup.procs" ] || return 1
  group=$above/qlora-bench-$$
  mkdir "$group" 2>/dev/null && [ -w "$group/$limit" ] && echo "$1" 2>/dev/null >"$group/$limit" || return 1
  # Version 1 counts memory and swap together.
  [ ! -w "$group/$swap" ] || { [ "$limit" = memory.max ] && echo 0 || echo "$1"; } >"$group/$swap" 2>/dev/null || true
}

lift_limit() {
  [ -z "$group" ] || rmdir "$group" 2>/dev/null || true
  within=() group=
}

# measured LOG COMMAND...: its output goes to LOG; prints the most that it had resident. Its exit code is the command's.
measured() {
  local log=$1 job now status all=0 anonymous=0 failed=0
  shift
  rm -f "$log.pid"
  # The process writes its number, and every tenth of a second its resident sizes are read.
  "${within[@]}" bash -c 'echo $$ >"$0" && exec "$@"' "$log.pid" "$@" >"$log" 2>&1 &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    if [ -s "$log.pid" ] && status=$(cat "/proc/$(cat "$log.pid")/status" 2>/dev/null); then
      now=$(awk '/^VmHWM:/ {print $2}' <<<"$status") && [ "${now:-0}" -le "$all" ] || all=$now
      now=$(awk '/^RssAnon:/ {print $2}' <<<"$status") && [ "${now:-0}" -le "$anonymous" ] || anonymous=$now
    fi
    sleep 0.1
  done
  wait "$job" || failed=$?
  rm -f "$log.pid"
  echo "peak: $((all / 1024)) MiB resident, $((anonymous / 1024)) MiB of them not pages of files"
  return "$failed"
}
