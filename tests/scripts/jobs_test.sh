#!/usr/bin/env bash
# Runs scripts/jobs.sh on machines made of files and compares what it prints.
set -euo pipefail
jobs=$(cd "$(dirname "$0")/../.." && pwd)/scripts/jobs.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# machine NAME MEGABYTES GROUP: a machine whose v2 groups are mounted, with that much memory available.
machine() {
  root=$work/$1
  groups=$root/sys/fs/cgroup
  mkdir -p "$root/proc/self" "$groups$3"
  echo "MemAvailable: $(($2 * 1024)) kB" >"$root/proc/meminfo"
  echo "0::$3" >"$root/proc/self/cgroup"
  echo "31 22 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw" >"$root/proc/self/mountinfo"
}

# expect CLAIM NUMBER
expect() {
  local found
  found=$("$jobs" "$root")
  [ "$found" = "$2" ] || { echo "$1: expected $2, found $found"; failures=$((failures + 1)); }
}

cores=$(nproc)
at_most_cores() { echo $(($1 < cores ? $1 : cores)); }

machine without_groups 1000000 /
rm "$root/proc/self/cgroup"
expect "a machine without groups runs one job a core" "$cores"

machine little_memory 1000 /
expect "a machine with 1 GB runs one job" 1

machine nested 1000000 /a/b
echo "max 100000" >"$groups/a/b/cpu.max"
echo "150000 100000" >"$groups/a/cpu.max"
expect "a quota of 1.5 cores in the group above runs two jobs" "$(at_most_cores 2)"
echo "100000 100000" >"$groups/a/b/cpu.max"
expect "a quota of one core runs one job" 1

machine small_group 1000000 /a
echo $((3 << 30)) >"$groups/a/memory.max"
echo $((1 << 30)) >"$groups/a/memory.current"
expect "a group with 2 GB left runs one job" 1
echo $((5 << 30)) >"$groups/a/memory.max"
expect "a group with 4 GB left runs two jobs" "$(at_most_cores 2)"
echo $((5 << 30)) >"$groups/a/memory.current"
echo "inactive_file $((4 << 30))" >"$groups/a/memory.stat"
expect "page cache that can be dropped counts as free" "$(at_most_cores 2)"

machine version1 1000000 /
printf '%s\n' "5:memory:/docker/c" "4:cpu,cpuacct:/docker/c" >"$root/proc/self/cgroup"
printf '%s\n' "30 22 0:26 /docker/c /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct" \
  "31 22 0:27 /docker/c /sys/fs/cgroup/memory ro shared:1 - cgroup cgroup rw,memory" >"$root/proc/self/mountinfo"
mkdir "$groups/cpu" "$groups/memory"
echo -1 >"$groups/cpu/cpu.cfs_quota_us"
echo 100000 >"$groups/cpu/cpu.cfs_period_us"
expect "version 1 without a quota runs one job a core" "$cores"
echo 100000 >"$groups/cpu/cpu.cfs_quota_us"
expect "version 1 with a quota of one core runs one job" 1
echo -1 >"$groups/cpu/cpu.cfs_quota_us"
echo $((3 << 30)) >"$groups/memory/memory.limit_in_bytes"
echo $((2 << 30)) >"$groups/memory/memory.usage_in_bytes"
expect "version 1 with 1 GB left runs one job" 1

[ "$failures" -eq 0 ] || exit 1
echo "ok"
