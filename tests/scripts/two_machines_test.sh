#!/usr/bin/env bash
# A run of four ranks on two machines, which are network namespaces joined by a pair of virtual Ethernet devices: the bits of one process;
# an end in time when the cable is pulled; the time of a step at 1 Gbit/s. Needs no root where the kernel lets users make namespaces; else
# the ranks meet under two addresses of the loopback device, and the cable is not pulled.
#
#   tests/scripts/two_machines_test.sh QLORA WRITE_TINY_RUN        # both in build/bin
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
. "$here/tiny_runs.sh"

in_namespaces() { unshare --user --map-root-user --mount --net "$here/$(basename "$0")" "$@"; }

# machine0 and machine1, joined by their devices "cable". `ip netns` writes below /run, which is ours within the mount namespace.
make_machines() {
  mount -t tmpfs none /run && mkdir /run/netns
  local i
  for i in 0 1; do ip netns add "machine$i"; done
  ip link add cable netns machine0 type veth peer name cable netns machine1
  for i in 0 1; do
    ip -n "machine$i" address add "10.77.0.$((i + 1))/24" dev cable
    ip -n "machine$i" link set lo up
    ip -n "machine$i" link set cable up
  done
}

case ${1:-} in
  --probe) make_machines; nsenter --net=/run/netns/machine1 true; exit ;;
  --inside) shift; make_machines; namespaces=true address=10.77.0.1 ;;
  *)
    if why=$(in_namespaces --probe 2>&1); then
      status=0
      in_namespaces --inside "$@" || status=$?
      exit "$status"
    fi
    echo "no network namespaces for this user (${why%%$'\n'*}): the ranks meet at 127.0.0.2, no cable is pulled"
    namespaces=false address=127.0.0.2
    ;;
esac
qlora=$(realpath "$1")
work=$(mktemp -d)
ranks=()
clean_up() {
  [ ${#ranks[@]} -eq 0 ] || kill -KILL "${ranks[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
"$2" "$work"

# on_machine NUMBER COMMAND...: in the place of this shell.
on_machine() {
  local machine=$1
  shift
  if $namespaces; then exec nsenter --net="/run/netns/machine$machine" "$@"; else exec "$@"; fi
}

# start_ranks RUN SETTING...: ranks 0 and 1 on machine 0, 2 and 3 on machine 1.
start_ranks() {
  local run=$1 settings=() rank port
  shift
  for setting in "output.dir=$work/$run" train.rank_timeout=60 "$@"; do settings+=(--set "$setting"); done
  port=$(free_port) ranks=()
  for rank in 0 1 2 3; do
    on_machine $((rank / 2)) env RANK="$rank" WORLD_SIZE=4 LOCAL_RANK=$((rank % 2)) LOCAL_WORLD_SIZE=2 \
      MASTER_ADDR="$address" MASTER_PORT="$port" "$qlora" train "$work/recipe.yaml" "${settings[@]}" >"$work/$run.$rank" 2>&1 &
    ranks+=($!)
  done
}
# expect_codes CODE RUN
expect_codes() {
  local rank
  for rank in 0 1 2 3; do expect_code "$1" "${ranks[rank]}" "$work/$2.$rank"; done
  ranks=()
}
# run_alone RUN SETTING...
run_alone() {
  local run=$1 settings=()
  shift
  for setting in "output.dir=$work/$run" "$@"; do settings+=(--set "$setting"); done
  "$qlora" train "$work/recipe.yaml" "${settings[@]}" >"$work/$run.0" 2>&1 || fail "one process: $(tail -n 5 "$work/$run.0")"
}

run_alone alone
start_ranks four
expect_codes 0 four
expect_same alone four
echo "four ranks on two machines: the bits of one process"
if ! $namespaces; then echo ok; exit; fi

patience=15
start_ranks cut train.rank_timeout=$patience
wait_for_lines cut 60 "${ranks[0]}"
ip -n machine1 link set cable down
pulled=$SECONDS
expect_codes 1 cut
took=$((SECONDS - pulled))
[ "$took" -le $((patience + 60)) ] || fail "the ranks ended $took s after the cable was pulled, with a patience of $patience s"
for rank in 0 1 2 3; do
  grep -q "another rank is gone or silent" "$work/cut.$rank" || fail "rank $rank does not say why it ended: $(tail -n 3 "$work/cut.$rank")"
done
ip -n machine1 link set cable up
start_ranks cut
expect_codes 0 cut
expect_same alone cut
echo "the cable pulled: exit code 1 after $took s (train.rank_timeout: $patience); plugged in again, the run ends in the same bits"

# An adapter of 15 MB on the same model. A sum sends, of the N bytes of the gradients, N/4 from each rank to each other one, then the sums
# of these quarters round the ring: N and 3/4 N cross the cable in each direction.
large=(lora.rank=4096 optim.paged_resident_bytes=100000000 train.max_steps=8 train.eval_every=0 train.save_every=0)
step_seconds() { sed -nE 's/.*"step_seconds":([0-9.e-]+).*/\1/p' "$work/$1/metrics.jsonl" | sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
run_alone large "${large[@]}"
start_ranks free "${large[@]}"
expect_codes 0 free
expect_same large free
bytes=$(stat -c %s "$work/large/adapter/adapter_model.safetensors")
echo "adapter of $bytes bytes, median of 8 steps: one process $(step_seconds large) s, four ranks $(step_seconds free) s"
for machine in machine0 machine1; do
  if ! tc -n "$machine" qdisc add dev cable root tbf rate 1gbit burst 1mb latency 100ms; then
    echo "no tc tbf here: the step at 1 Gbit/s is not measured"
    echo ok
    exit
  fi
done
start_ranks limited "${large[@]}"
expect_codes 0 limited
expect_same large limited
awk -v bytes="$bytes" -v free="$(step_seconds free)" -v limited="$(step_seconds limited)" 'BEGIN {
  sum = 1.75 * bytes * 8 / 1e9
  printf "at 1 Gbit/s: %.3f s a step, %.3f s more; by arithmetic a sum takes %.3f s\n", limited, limited - free, sum
  exit limited < sum / 2  # the gradients have not gone over the cable
}' || fail "a step is faster than the cable"
echo ok
