#!/usr/bin/env bash
# Two ranks started, stopped and restarted by torchrun and by mpirun, where they are in the PATH, end in the bits of one process.
#
#   tests/scripts/launchers_test.sh QLORA WRITE_TINY_RUN        # both in build/bin
set -euo pipefail
. "$(dirname "$0")/tiny_runs.sh"
qlora=$(realpath "$1")
work=$(mktemp -d)
launcher=
clean_up() {
  [ -z "$launcher" ] || kill "$launcher" 2>/dev/null || true # which ends its ranks
  rm -rf "$work"
}
trap clean_up EXIT
"$2" "$work"
"$qlora" train "$work/recipe.yaml" --set "output.dir=$work/alone" >"$work/alone.0" 2>&1 || fail "one process: $(tail -n 5 "$work/alone.0")"

# start RUN LAUNCHER...: `qlora train` into that run, in the background.
start() {
  local run=$1
  shift
  "$@" "$qlora" train "$work/recipe.yaml" --set "output.dir=$work/$run" --set train.rank_timeout=60 >"$work/$run.0" 2>&1 &
  launcher=$!
}
# expect_end CODE RUN
expect_end() {
  expect_code "$1" "$launcher" "$work/$2.0"
  launcher=
}
# rank_below PID NUMBER: the process that torchrun PID started as this rank.
rank_below() {
  local children child
  read -r -a children <"/proc/$1/task/$1/children" || true
  for child in "${children[@]}"; do
    if tr '\0' '\n' <"/proc/$child/environ" 2>/dev/null | grep -qx "RANK=$2"; then echo "$child"; return; fi
  done
  fail "torchrun has no child with RANK=$2"
}

with_torchrun() {
  local torchrun=(torchrun --no-python --nproc-per-node 2 --master-addr 127.0.0.1) rank
  start torchrun "${torchrun[@]}" --master-port "$(free_port)"
  expect_end 0 torchrun
  expect_same alone torchrun
  echo "torchrun: two ranks, the bits of one process"

  start restarted "${torchrun[@]}" --master-port "$(free_port)" --max-restarts 1
  wait_for_lines restarted 60 "$launcher"
  rank=$(rank_below "$launcher" 1)
  kill -KILL "$rank"
  expect_end 0 restarted
  expect_same alone restarted
  echo "torchrun --max-restarts 1: a killed rank, the same bits"
}

with_mpirun() {
  local mpirun=(mpirun -n 2)
  if mpirun --version 2>&1 | grep -q "Open MPI"; then
    mpirun+=(--bind-to none --oversubscribe)
    [ "$(id -u)" -ne 0 ] || mpirun+=(--allow-run-as-root)
  fi
  MASTER_PORT=$(free_port)
  export MASTER_PORT
  start mpirun "${mpirun[@]}"
  expect_end 0 mpirun
  expect_same alone mpirun
  echo "mpirun: two ranks, the bits of one process"

  # SIGUSR1, which Open MPI hands on to the ranks; after SIGTERM it would leave them a second.
  start stopped "${mpirun[@]}"
  wait_for_lines stopped 60 "$launcher"
  kill -USR1 "$launcher"
  expect_end 130 stopped
  start stopped "${mpirun[@]}"
  expect_end 0 stopped
  expect_same alone stopped
  echo "mpirun: stopped by SIGUSR1 and started again, the same bits"
}

if command -v torchrun >/dev/null; then with_torchrun; else echo "torchrun is not in the PATH: not tried"; fi
if command -v mpirun >/dev/null; then with_mpirun; else echo "mpirun is not in the PATH: not tried"; fi
echo ok
