#!/usr/bin/env bash
# Small inputs that other tools' users reported faults with: runs each and says whether qlora does with it what is right.
#
#   tests/interop/cases.sh CASES QLORA [NAME...]
#
# CASES holds a folder for each case with make.py, which makes its input of the model in $BASE (by default CASES/../data/models/stories260K/hf),
# and run.sh, which runs the program in $Q. What is right stands
# below; losses are those of transformers 5.23.0 and PEFT 0.21.2 on the same files (on float32 weights, as the files hold them). Prints a line a case; exit code 1 if one is wrong.
set -uo pipefail
cases=$(realpath "$1") Q=$(realpath "$2")
shift 2
export Q BASE=${BASE:-$(realpath "$cases/../data/models/stories260K/hf")} OMP_NUM_THREADS=1 QLORA_INSTRUCTION_SET=avx2  # float32 products on every processor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0

# says TEXT: the output holds it. count N TEXT: in N lines.
says() { grep -qaF -- "$1" "$out" || { missing+=" [no '$1']"; return 1; }; }
count() { local n; n=$(grep -caF -- "$2" "$out"); [ "$n" -eq "$1" ] || { missing+=" [$n times '$2', not $1]"; return 1; }; }
never() { ! grep -qaF -- "$1" "$out" || { missing+=" ['$1']"; return 1; }; }
# losses L...: the last loss of each table of evaluations.
losses() {
  local found
  found=$(awk '/^model +loss/ { if (last) print last; last = ""; inside = 1; next } inside && $2 ~ /^[0-9.]+$/ { last = $2; next } { inside = 0 } END { if (last) print last }' "$out" | tr '\n' ' ')
  [ "$found" = "$* " ] || { missing+=" [losses $found, not $*]"; return 1; }
}

right_01() { count 2 'rc=2'; says 'rows.jsonl:'; says '512'; never 'index out of range'; }
right_02() { says 'rc=0'; }
right_03() { says 'rc=0'; }
right_04() { losses 8.4942 8.4942 || { missing=""; says 'tie_word_embeddings'; says 'lm_head.weight'; }; }
right_05() { losses 3.3247 3.3247; says 'index'; }
right_06() { losses 4.5864 4.5864; says 'rope_parameters'; }
right_08() { count 1 'rc=0'; count 1 'rc=2'; says 'give the first part, m-00001-of-00002.gguf'; }
right_09() { losses 5.9960 3.2975 || { missing=""; says 'init_lora_weights'; }; }
right_10() { losses 3.2979; says 'rc=0'; }
right_12() { losses 3.2979; says 'rc=0'; says 'rc=2'; says '514'; says '512'; }
right_14() { count 7 ': 0 times WRONG'; }
right_15() { says 'part.jsonl:1'; says 'rc=2'; says 'rc=0'; never 'json.exception'; }
right_16() { never 'has no chat template'; says 'run/adapter: 1 chat_template.jinja'; says 'merged: 1 chat_template.jinja'; says 'rc=0'; }
right_17() { says 'rc=130'; says 'rc=0'; says 'checkpoint-'; says '"step":20000,'; }
right_18() { count 3 'rc=0'; says 'checkpoint-000008'; says 'checkpoint-000006'; }
# Twice the turns take at most three times the time, and four times the turns six times: in proportion it is two and four times (less, as the
# start counts, too), and with the square of the turns four and sixteen times.
right_19() {
  local seconds
  seconds=$(sed -n 's/^user.*m\([0-9.]*\)s$/\1/p' "$out")
  awk 'NR == 1 { few = $1 } NR == 2 { half = $1 } NR == 3 { exit !($1 <= 3 * half && $1 <= 6 * few) }' <<<"$seconds" || missing+=" [user seconds $(tr '\n' ' ' <<<"$seconds")]"
  count 3 'ends of turn'
}
right_21() { says "cannot access './~'"; says 'home/qlora_run'; says 'rc=2'; }
# What is gzip or CSV by its name is read.
right_23() { count 7 'rc=2'; count 2 'rc=0'; says 'Git LFS'; says 'Parquet'; says 'UTF-16'; never 'json.exception'; never 'Internal:'; }

# The run that goes on without a terminal shall come to its end here.
shorten() { sed -i 's/max_steps: 1000000/max_steps: 20000/' recipe.yaml 2>/dev/null || true; }

for case in "$cases"/[0-9]*/; do
  name=$(basename "$case") number=$(basename "$case" | cut -c1-2)
  if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx -e "$name" -e "$number"; then continue; fi
  cp -r "$case" "$work/$name"
  cp "$cases"/*.py "$work/" 2>/dev/null
  out=$work/$name.out missing=""
  (cd "$work/$name" && HOME=$work/home && export HOME && mkdir -p "$HOME" && python3 make.py && shorten && time bash ./run.sh) >"$out" 2>&1 || true
  if "right_$number" && [ -z "$missing" ]; then
    echo "right  $name"
  else
    echo "WRONG  $name:$missing"
    [ -z "${KEEP:-}" ] || cp "$out" "$KEEP/"
    wrong=1
  fi
  rm -rf "${work:?}/$name"
done
exit $wrong
