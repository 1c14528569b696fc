#!/usr/bin/env bash
# Prints how many compilers may run at once: one a core and one for each 2 GB of memory, which is what the torch headers cost
# the compiler; at least 1. Cores and memory are what this process may use: within its affinity mask and the limits of its
# control groups (base/cgroup.h explains the files).
#
#   scripts/jobs.sh [ROOT]     ROOT stands for / in the kernel's files
set -euo pipefail
root=${1:-}
gigabytes_a_job=2

# The folders of this process's groups and of all groups above them, one a line.
group_folders() {
  [ -r "$root/proc/self/cgroup" ] && [ -r "$root/proc/self/mountinfo" ] || return 0
  awk '
    NR == FNR {  # 0::/group or 4:cpu,cpuacct:/group
      split($0, field, ":")
      group = substr($0, length(field[1] field[2]) + 3)
      count = split(field[2], name, ",")
      if (count == 0) of["v2"] = group
      for (i = 1; i <= count; i++) of[name[i]] = group
      next
    }
    {
      for (dash = 7; dash < NF && $dash != "-"; dash++);
      type = $(dash + 1)
      own = type == "cgroup2" ? of["v2"] : ""
      count = type == "cgroup" ? split($(dash + 3), option, ",") : 0
      for (i = 1; i <= count; i++) if (option[i] in of) own = of[option[i]]
      if (own == "") next
      top = $4 == "/" ? "" : $4
      below = index(own "/", top "/") == 1 && own !~ /\.\./ ? substr(own, length(top) + 1) : ""
      sub(/\/$/, "", below)
      print $5 below
      while (below != "") {
        sub(/\/[^\/]*$/, "", below)
        print $5 below
      }
    }' "$root/proc/self/cgroup" "$root/proc/self/mountinfo"
}

# number FILE: its first word if that is a number.
number() {
  local word=
  [ ! -r "$1" ] || read -r word _ <"$1" || true
  [[ $word =~ ^[0-9]+$ ]] && echo "$word"
}

# at_most NAME NUMBER: lowers the variable.
at_most() { [ "${!1}" -le "$2" ] || printf -v "$1" %s "$2"; }

bound_cores() { # FOLDER
  local quota period
  if [ -r "$1/cpu.max" ]; then
    read -r quota period <"$1/cpu.max"
  else
    quota=$(number "$1/cpu.cfs_quota_us") && period=$(number "$1/cpu.cfs_period_us") || return 0
  fi
  [[ $quota =~ ^[1-9][0-9]*$ ]] || return 0
  at_most cores $(((quota + period - 1) / period))
}

bound_memory() { # FOLDER
  local used limit cache name
  used=$(number "$1/memory.current" || number "$1/memory.usage_in_bytes") || return 0
  cache=$(awk '/^(total_)?inactive_file / {if ($2 > most) most = $2} END {printf "%.0f", most}' "$1/memory.stat" 2>/dev/null) ||
    cache=0
  for name in memory.max memory.high memory.limit_in_bytes; do
    limit=$(number "$1/$name") || continue
    at_most memory $((limit - used + cache))
  done
}

cores=$(nproc)
memory=$(awk '/^MemAvailable:/ {printf "%.0f", $2 * 1024}' "$root/proc/meminfo")
while read -r folder; do
  bound_cores "$root$folder"
  bound_memory "$root$folder"
done < <(group_folders)
jobs=$cores
at_most jobs $((memory / (gigabytes_a_job << 30)))
echo $((jobs < 1 ? 1 : jobs))
