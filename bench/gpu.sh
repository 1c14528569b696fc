#!/usr/bin/env bash
# All that is to be known on a machine with a GPU, part by part, in one Markdown file: the gpu tests, compute-sanitizer, parity gates,
# tokens a second and memory with the goals beside them, the plan against what was measured, and the kernels of a step.
#
#   bench/gpu.sh                          # all parts, with the programs of build-cuda; goes on after the last finished part
#   bench/gpu.sh --budget 460             # begins no part that is not likely to end by then; the next call goes on
#   bench/gpu.sh --only speed-8b          # parts whose names begin so (may be repeated), finished ones as well
#   bench/gpu.sh --list                   # names, time limits, state
#   bench/gpu.sh --device cpu --shape tiny --build build --out /tmp/dry    # all parts on the CPU with tiny models: whether the script works
#
#   --out FOLDER      results.md, and a log and a state of each part in parts/; default build-gpu/results. Delete it to begin anew
#   --build FOLDER    whose bin/ has the programs; default build-cuda
#   --carried FILE    what --pack made, instead of a build; it is unpacked beside --out
#   --copy FOLDER     after each part results.md and state.tar.gz (all of --out) go there too, for machines that give back few files
#   --python PATH     an interpreter that may have torch, peft, transformers, bitsandbytes; default python3
#
# A part that fails or runs out of time is noted and does not stop the rest; --only runs it again. Parts whose tools are missing (peers,
# compute-sanitizer, nsys) say "not there".
#
# For a machine that has torch 2.11.0+cu130 from PyPI and no compiler (SM: 90 for an H100 or H200, docs/runs.md has the others), here:
#
#   cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=90-real -DQLORA_BUILD_BENCH=ON -DQLORA_PARQUET=OFF
#   cmake --build --preset cuda --parallel "$(scripts/jobs.sh)"
#   bench/gpu.sh --pack build-gpu/carried.tar.xz [--bitsandbytes SITE_PACKAGES]    # stripped; says its size (about 30 MB)
#
# and there, with the sources and build-gpu/ of this machine:
#
#   bench/gpu.sh --carried build-gpu/carried.tar.xz --copy "$OUT" --budget 460
#   mkdir -p build-gpu/results && tar -xzf state.tar.gz -C build-gpu/results       # here, before the next call on a fresh machine
#
# The archive has the programs below and the system's libraries that they link; LibTorch's and CUDA's are those of the wheel that --python
# finds (bench/gpu_carry.sh). SITE_PACKAGES is a Python's that has bitsandbytes, of which the Python files and the library for CUDA 13.0 are taken.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
programs=(qlora bench_train_step made_base make_orders write_tiny_run interop_quantize interop_gradients
  test_quant test_lora test_optim test_model test_recipes)

out=$root/build-gpu/results build=$root/build-cuda device=cuda shape= python=python3
carried= copy= budget= list= part= pack= bitsandbytes= only=()

fail() {
  echo "bench/gpu.sh: $*" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --list) list=yes; shift; continue ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
  esac
  [ $# -ge 2 ] || fail "$1 needs a value, or is no option; --help lists them"
  case $1 in
    --out) out=$2 ;;
    --build) build=$2 ;;
    --carried) carried=$2 ;;
    --copy) copy=$2 ;;
    --python) python=$2 ;;
    --device) device=$2 ;;
    --shape) shape=$2 ;;
    --budget) budget=$2 ;;
    --only) only+=("$2") ;;
    --pack) pack=$2 ;;
    --bitsandbytes) bitsandbytes=$2 ;;
    --part) part=$2 ;;  # of this script's own calls
    *) fail "$1 is no option; --help lists them" ;;
  esac
  shift 2
done
case $device in cuda | cpu) ;; *) fail "--device must be cuda or cpu, found $device" ;; esac
case $shape in "" | tiny) ;; *) fail "--shape must be tiny, found $shape" ;; esac
[[ $budget =~ ^[0-9]*$ ]] || fail "--budget must be a number of seconds, found $budget"
mkdir -p "$out/parts" "$out/made"
out=$(realpath "$out")
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TORCHDYNAMO_DISABLE=1
PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer

# Name, time limit in seconds, what it is; in the order in which they run.
parts=(
  "machine 40 what the device's copies and matrix products reach"
  "tests-quant 60 gpu tests of quantization"
  "tests-lora 30 gpu tests of adapters"
  "tests-optim 40 gpu tests of optimizers"
  "tests-model 150 gpu tests of kernels and model families"
  "tests-recipes 60 gpu tests of whole runs"
  "sanitize-quant 70 compute-sanitizer on the tests of quantization"
  "sanitize-lora 50 the same of adapters"
  "sanitize-optim 60 the same of optimizers"
  "sanitize-model 100 the same of the model's kernels"
  "gate-bytes 120 codes and values beside bitsandbytes, byte for byte"
  "gate-losses 100 20 steps in fp32 and bf16 beside the CPU's losses"
  "gate-peft-loss 60 20 steps beside PEFT's"
  "gate-peft-gradient 90 gradients beside PEFT's"
  "speed-8b 70 8B, 4 x 2048"
  "peft-8b 100 the same with PEFT"
  "speed-8b-recomputed 70 8B, 4 x 2048, recomputed"
  "peft-8b-recomputed 100 the same with PEFT"
  "speed-1.7b 40 1.7B, 4 x 2048"
  "peft-1.7b 70 the same with PEFT"
  "speed-0.6b 40 0.6B, 4 x 2048"
  "peft-0.6b 60 the same with PEFT"
  "speed-8b-memory 60 8B, 1 x 2048, recomputed"
  "peft-8b-memory 90 the same with PEFT"
  "speed-8b-bf16 70 8B on a bf16 base, 4 x 2048, recomputed"
  "peft-8b-bf16 80 the same with PEFT, of stock ATen operations"
  "speed-8b-int8 80 8B in LLM.int8(), 4 x 2048, recomputed"
  "plan-0.6b 40 plan of 0.6B"
  "plan-1.7b 40 plan of 1.7B"
  "plan-8b 80 plans of 8B"
  "profile-0.6b 50 stages and kernels of 0.6B, 4 x 2048"
  "profile-8b 70 stages and kernels of 8B, 4 x 2048"
  "nsys-0.6b 80 Nsight Systems on 0.6B"
)

not_there() {
  echo "not there: $*"
  exit 77
}

# Whether Python has these modules.
has_modules() {
  "$python" -c 'import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))' "$@" 2>/dev/null
}
need_modules() { has_modules "$@" || not_there "$python has not all of $*"; }

threads=$(nproc)
[ "$threads" -le 16 ] || threads=16

# ---- models

# config.json of a shape, in a folder of its name; prints the folder.
shape_folder() {
  local folder=$out/made/shapes/$1 keys
  if [ "$shape" = tiny ] && [ "$1" != gate ]; then
    keys='"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
      "head_dim": 16, "vocab_size": 32000'
  else
    case $1 in
      0.6b) keys='"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936' ;;
      1.7b) keys='"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 64, "vocab_size": 49152' ;;
      8b) keys='"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256' ;;
      # The tokenizer of the tests has 258 tokens.
      gate) keys='"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 258' ;;
    esac
  fi
  case $1 in
    0.6b) keys+=', "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": true' ;;
    8b) keys+=', "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": false' ;;
    *) keys+=', "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": true' ;;
  esac
  mkdir -p "$folder"
  echo "{$keys, \"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-5, \"rope_theta\": 100000.0}" >"$folder/config.json"
  echo "$folder"
}

# Of a row of the table: shape, sequences, tokens of each, and options of bench_train_step.
row() {
  local length=2048
  [ "$shape" != tiny ] || length=64
  case $1 in
    8b | 1.7b | 0.6b) echo "$1 4 $length" ;;
    8b-recomputed) echo "8b 4 $length --recompute" ;;
    8b-memory) echo "8b 1 $length --recompute" ;;
    8b-bf16) echo "8b 4 $length --recompute --quantization none" ;;
    8b-int8) echo "8b 4 $length --recompute --quantization int8" ;;
  esac
}

# A base of made weights with the tests' tokenizer, in bf16; prints its folder.
gate_base() {
  local base=$out/made/base config
  if [ ! -e "$base/config.json" ]; then
    config=$(shape_folder gate)
    "$build/bin/write_tiny_run" "$out/made/tiny" >&2
    rm -rf "$base"
    "$build/bin/made_base" --config "$config/config.json" --tokenizer "$out/made/tiny/model" --output "$base" --method none >&2
  fi
  echo "$base"
}

# ---- parts

machine() {
  [ "$device" = cuda ] || not_there "a GPU"
  nvidia-smi || true
  need_modules torch
  "$python" - <<'PYTHON'
import json, torch

def seconds(work, times=10):
    for _ in range(3):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / times

source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda").random_()
target = torch.empty_like(source)
copy = 2 * source.numel() / seconds(lambda: target.copy_(source))
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
product = 2 * 8192 ** 3 / seconds(lambda: a @ b)
print(json.dumps({"torch": torch.__version__, "copy_bytes_per_second": copy, "bf16_flops": product}))
PYTHON
}

gpu_tests() { # FOLDER
  "$build/bin/test_$1" --gtest_filter='*Gpu.*'
}

sanitize() { # PROGRAM FILTER
  command -v compute-sanitizer >/dev/null || not_there compute-sanitizer
  # Each allocation by itself, so that what lies beyond it is not another tensor's.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --print-limit 20 --error-exitcode 9 "$build/bin/$1" --gtest_filter="$2"
}

gate_bytes() {
  need_modules torch bitsandbytes
  QLORA_INTEROP_QUANTIZE=$build/bin/interop_quantize "$python" "$root/tests/interop/bitsandbytes_nf4.py" --device "$device"
}

gate_losses() {
  local base work=$out/made/losses i type where
  base=$(gate_base)
  mkdir -p "$work"
  for ((i = 0; i < 200; ++i)); do
    printf '{"text": "Row %d of two hundred: the quick brown fox jumps over %d lazy dogs, one after the other, until it is tired."}\n' "$i" "$i"
  done >"$work/rows.jsonl"
  for type in float32 bfloat16; do
    for where in cpu "$device"; do
      cat >"$work/recipe.yaml" <<YAML
model: {path: $base}
quantization: {method: nf4, double_quant: true}
lora: {rank: 16, alpha: 32, targets: all-linear}
data: {train: [{path: $work/rows.jsonl, format: text}], sequence_length: 256}
optim: {lr: 1.0e-3}
train: {max_steps: 20, micro_batch_size: 2, save_every: 0, compute_dtype: $type, device: $where}
output: {dir: $work/run, overwrite: true}
YAML
      "$build/bin/qlora" train "$work/recipe.yaml" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
      echo "losses $type $where: $(sed -nE 's/.*"loss":([0-9.e+-]+).*/\1/p' "$work/run/metrics.jsonl" | tr '\n' ' ')"
    done
  done
}

gate_peft() { # loss or gradient
  local base work=$out/made/peft-$1
  need_modules torch peft transformers bitsandbytes
  base=$(gate_base)
  rm -rf "$work"
  mkdir -p "$work"
  "$python" "$root/bench/peers/gates.py" --only "$1" --device "$device" --steps 20 --rows 8 --threads "$threads" \
    --build "$build" --model "$base" --gguf none --python "$python" --work "$work"
}

train_step() { # ROW OPTIONS...
  local name length batch options folder
  read -r name batch length options <<<"$(row "$1")"
  folder=$(shape_folder "$name")
  # shellcheck disable=SC2086  # several words
  "${before[@]}" "$build/bin/bench_train_step" --model "$folder/config.json" --device "$device" --batch "$batch" --sequence "$length" \
    --threads "$threads" --steps $([ "$shape" = tiny ] && echo 2 || echo 6) $options "${@:2}"
}
before=()  # what bench_train_step runs under

peft_step() { # ROW
  local name length batch options folder more=()
  need_modules torch peft transformers bitsandbytes
  read -r name batch length options <<<"$(row "$1")"
  folder=$(shape_folder "$name")
  [[ $options != *--recompute* ]] || more+=(--checkpoint)
  [[ $options != *"--quantization none"* ]] || more+=(--base none)
  "$python" "$root/bench/peers/peft_train.py" --made --device "$device" --model "$folder" --batch "$batch" --sequence "$length" \
    --steps $([ "$shape" = tiny ] && echo 2 || echo 4) "${more[@]}"
}

plan() { # ROW...
  local row name length batch options work=$out/made/plan
  mkdir -p "$work"
  echo '{"input_ids": [3, 4, 5], "labels": [3, 4, 5]}' >"$work/rows.jsonl"
  for row in "$@"; do
    read -r name batch length options <<<"$(row "$row")"
    cat >"$work/recipe.yaml" <<YAML
model: {path: $(shape_folder "$name")/config.json}
quantization: {method: nf4, double_quant: true}
lora: {rank: 16, alpha: 16, targets: all-linear}
data: {train: [{path: $work/rows.jsonl, format: pretokenized}], packing: false, sequence_length: $length}
optim: {name: paged_adamw_8bit}
train: {max_steps: 10, micro_batch_size: $batch, gradient_checkpointing: $([[ $options == *--recompute* ]] && echo true || echo false), threads: $threads}
output: {dir: $work/run}
YAML
    echo "plan of $row"
    "$build/bin/qlora" plan "$work/recipe.yaml" --device "$device" --json
  done
}

run_part() {
  case $1 in
    machine) machine ;;
    tests-*) gpu_tests "${1#tests-}" ;;
    sanitize-model) sanitize test_model 'ModelKernelsGpu.*:ExpertRoutingGpu.*' ;;
    sanitize-*) sanitize "test_${1#sanitize-}" '*Gpu.*' ;;
    gate-bytes) gate_bytes ;;
    gate-losses) gate_losses ;;
    gate-peft-*) gate_peft "${1#gate-peft-}" ;;
    speed-*) train_step "${1#speed-}" ;;
    peft-*) peft_step "${1#peft-}" ;;
    plan-8b) plan 8b 8b-recomputed 8b-memory ;;
    plan-*) plan "${1#plan-}" ;;
    profile-*) train_step "${1#profile-}" --no-floor --profile --kernels ;;
    nsys-*)
      command -v nsys >/dev/null || not_there nsys
      before=(nsys profile --trace=cuda --stats=true --force-overwrite=true -o "$out/made/$1")
      train_step "${1#nsys-}" --no-floor
      ;;
    *) fail "there is no part $1; --list has their names" ;;
  esac
}

. "$root/bench/gpu_carry.sh"

# ---- the run

describe_machine() {
  {
    date -u '+date: %F %T UTC'
    echo "commit: $(git -C "$root" describe --always --dirty 2>/dev/null || cat "$build/commit" 2>/dev/null || echo unknown)"
    if [ "$device" = cuda ]; then
      echo "device: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -1 || true)"
    else
      echo "device: CPU"
    fi
    echo "host: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
    [ -z "$shape" ] || echo "shape: $shape"
  } >"$out/machine.txt"
}

write_results() {
  printf '%s\n' "${parts[@]}" >"$out/parts.txt"
  "$python" "$root/bench/gpu_results.py" "$out" || true
  [ -n "$copy" ] || return 0
  mkdir -p "$copy"
  cp "$out/results.md" "$copy/results.md"
  tar -C "$out" --exclude=./made -czf "$copy/state.tar.gz.partial" . && mv "$copy/state.tar.gz.partial" "$copy/state.tar.gz"
}

# Whether --only names parts that there are.
check_only() {
  local begin
  for begin in "${only[@]}"; do
    printf '%s\n' "${parts[@]}" | grep "^$begin" >/dev/null || fail "there is no part $begin; --list has their names"
  done
}

is_wanted() { # PART
  local begin
  [ ${#only[@]} -gt 0 ] || return 0
  for begin in "${only[@]}"; do [[ $1 != "$begin"* ]] || return 0; done
  return 1
}

in_words() { # EXIT CODE
  case $1 in 0) echo done ;; 77) echo "not there" ;; 124 | 137) echo "out of time" ;; *) echo "failed ($1)" ;; esac
}

# Runs a part with its limit; its state is "code seconds".
timed() { # PART LIMIT REMAINING
  local allowed=$2 code=0 begin=$SECONDS
  [ "$3" -ge "$2" ] || allowed=$3
  timeout -k 10 "$allowed" bash "$0" --part "$1" --out "$out" --build "$build" --device "$device" ${shape:+--shape "$shape"} \
    --python "$python" >"$out/parts/$1.log" 2>&1 </dev/null || code=$?
  # What the budget cut short has not had its time; the next call gives it.
  if { [ $code -eq 124 ] || [ $code -eq 137 ]; } && [ "$allowed" -lt "$2" ]; then
    rm -f "$out/parts/$1.state"
    echo "cut short by the budget"
  else
    echo "$code $((SECONDS - begin))" >"$out/parts/$1.state"
    echo "$(in_words $code), $((SECONDS - begin)) s"
  fi
}

run_parts() {
  local name limit what remaining
  for line in "${parts[@]}"; do
    read -r name limit what <<<"$line"
    is_wanted "$name" || continue
    [ ${#only[@]} -gt 0 ] || [ ! -e "$out/parts/$name.state" ] || continue
    remaining=$((${budget:-1000000} - SECONDS))
    if [ "$remaining" -lt $((limit / 2)) ]; then
      echo "$name and what follows: left to the next call, $remaining s are left"
      break
    fi
    printf '%-22s' "$name"
    timed "$name" "$limit" "$remaining"
    write_results
  done
}

list_parts() {
  local name limit what state
  for line in "${parts[@]}"; do
    read -r name limit what <<<"$line"
    state=
    [ ! -e "$out/parts/$name.state" ] || state=$(in_words "$(cut -d ' ' -f 1 "$out/parts/$name.state")")
    printf '%-22s %4s s  %-12s %s\n' "$name" "$limit" "$state" "$what"
  done
}

if [ -n "$list" ]; then
  list_parts
elif [ -n "$pack" ]; then
  pack_programs
elif [ -n "$part" ]; then
  run_part "$part"
else
  check_only
  [ -z "$carried" ] || unpack_programs
  build=$(realpath "$build")
  for program in "${programs[@]}"; do
    [ -x "$build/bin/$program" ] || fail "$build/bin/$program is not there; --help says how it is built"
  done
  find_libraries
  link_sources
  describe_machine
  run_parts
  write_results
  cat "$out/results.md"
fi
