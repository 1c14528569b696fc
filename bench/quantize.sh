#!/usr/bin/env bash
# Time and peak memory of `qlora quantize`, for one program or several beside each other:
#
#   bench/quantize.sh MODEL FOLDER PROGRAM [PROGRAM...]
#
# METHODS="nf4 int8" chooses the methods, ROUNDS=3 how often each is run, THREADS=0 the threads (0: all). What is written lies in
# FOLDER until the next run. Prints a Markdown table; the whole time contains reading back. The peak is the greatest resident size
# that the program saw (VmHWM), pages of mapped files included.
set -euo pipefail
model=$(realpath "$1") folder=$2
shift 2
mkdir -p "$folder"

echo "| program | method | whole time | reading, quantizing and writing | peak memory | written |"
echo "|---|---|---|---|---|---|"
for round in $(seq 1 "${ROUNDS:-3}"); do
  for method in ${METHODS:-nf4 fp4 int8}; do
    for program in "$@"; do
      rm -rf "$folder/quantized"
      start=$(date +%s.%N)
      said=$("$program" quantize --model "$model" --output "$folder/quantized" --method "$method" --threads "${THREADS:-0}" --device cpu)
      end=$(date +%s.%N)
      seconds=$(grep -o 'quantized in [0-9.]* s' <<<"$said" | grep -o '[0-9.]* s')
      peak=$(grep -o 'peak memory [0-9]* MB' <<<"$said" | grep -o '[0-9]* MB')
      written=$(grep -o ': [0-9]* MB, quantized' <<<"$said" | grep -o '[0-9]* MB')
      printf '| %s | %s | %.1f s | %s | %s | %s |\n' "$program" "$method" "$(echo "$end - $start" | bc)" "$seconds" "$peak" "$written"
    done
  done
done
