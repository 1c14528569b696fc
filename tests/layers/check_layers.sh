#!/usr/bin/env bash
# Checks what the compiler cannot: which folder may include which, and what stays in one place.
# The rules are those of docs/walkthrough.md. Prints one line a violation; exit code 1 when there is any.
#
#   tests/layers/check_layers.sh [ROOT]
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"

folders=(base io quant data lora optim model distributed trainer export recipes cli capi tests bench scripts)
present=()
for folder in "${folders[@]}"; do [ ! -d "$folder" ] || present+=("$folder"); done
[ ${#present[@]} -gt 0 ] || { echo "check_layers: no source folder in $PWD" >&2; exit 1; }

find "${present[@]}" -type f \( -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) -print0 |
  sort -z | xargs -0 awk '
  BEGIN {
    may["base"] = ""
    may["io"] = "base"
    may["quant"] = "base io"
    may["data"] = "base io"
    may["lora"] = "base io quant"
    may["optim"] = "base quant"
    may["model"] = "base io quant lora"
    may["distributed"] = "base"
    may["trainer"] = "base distributed io data lora model optim quant"
    may["export"] = "base distributed io data lora model optim quant trainer"
    may["recipes"] = may["export"] " export"
    may["cli"] = may["capi"] = may["scripts"] = may["recipes"] " recipes"
    split("base io quant data lora optim model distributed trainer export recipes cli capi tests bench scripts", list, " ")
    for (i in list) is_folder[list[i]] = 1
  }
  function report(what) { printf "%s:%d: %s\n", FILENAME, FNR, what; violations++ }
  function end_of_file(file, lines) {
    limit = file ~ /\.(h|cuh)$/ ? 200 : 400
    if (lines > limit) printf "%s: warning: %d lines, more than %d\n", file, lines, limit
  }
  FNR == 1 {
    if (file != "") end_of_file(file, lines)
    file = FILENAME
    folder = file; sub(/\/.*/, "", folder)
    files[file] = 1
    if (file ~ /\.cu$/ && file !~ /_cuda\.cu$/) report("a file that nvcc compiles is named *_cuda.cu")
  }
  { lines = FNR; code = $0; sub(/\/\/.*/, "", code) }

  code ~ /^[ \t]*#[ \t]*include[ \t]*["<]/ {
    target = code; sub(/^[ \t]*#[ \t]*include[ \t]*["<]/, "", target); sub(/[">].*/, "", target)
    if (code ~ /"/) {
      other = target; sub(/\/.*/, "", other)
      if (target ~ /\.\./) report("includes \"" target "\": name headers from the root, as \"folder/name.h\"")
      else if (target !~ /\//) includes[file] = includes[file] " " folder_of(file) "/" target
      else {
        includes[file] = includes[file] " " target
        if (is_folder[other] && other != folder && folder != "tests" && folder != "bench" &&
            index(" " may[folder] " ", " " other " ") == 0)
          report(folder "/ includes \"" target "\"; it may include: " (may[folder] == "" ? "nothing" : may[folder]))
      }
    } else if (target ~ /^(torch|ATen|c10|caffe2)\//) {
      torch_line[file] = FNR
    }
    if (target ~ /^yaml-cpp\// && file !~ /^(tests\/)?recipes\//) report("yaml-cpp belongs to recipes/ alone")
  }
  function folder_of(path) { sub(/\/[^\/]*$/, "", path); return path }

  code ~ /^[ \t]*#[ \t]*(if|ifdef|ifndef|elif)[ \t(].*QLORA_CUDA/ && folder != "base" && folder != "tests" && file != "distributed/engine_nccl.cpp" {
    report("QLORA_CUDA is asked in base/ and by the NCCL engine alone")
  }
  code ~ /<<</ && file !~ /_cuda\.cu$/ { report("kernels are launched in *_cuda.cu alone") }
  code ~ /0\.6961928/ && folder != "tests" {
    if (nf4_table == "") nf4_table = file
    else if (nf4_table != file) report("a second NF4 table; the first is in " nf4_table)
  }

  # Which torch header a file reaches through the headers it includes, if any.
  function torch_reached_from(path, n, i, header, found) {
    if (seen[path]++) return ""
    if (path in torch_line) return path ":" torch_line[path]
    n = split(includes[path], header, " ")
    for (i = 1; i <= n; i++) {
      found = torch_reached_from(header[i])
      if (found != "") return found
    }
    return ""
  }
  END {
    if (file != "") end_of_file(file, lines)
    for (path in files) {
      what = path ~ /^(io|data)\// ? "a file of io/ or data/" : "a kernel file"
      if (path !~ /^(io|data)\// && path !~ /_(cuda\.cu|cpu\.cpp)$/ || path ~ /^(tests|bench)\//) continue
      delete seen
      found = torch_reached_from(path)
      if (found != "") { printf "%s: %s sees a torch header, by %s\n", path, what, found; violations++ }
    }
    if (violations) { printf "check_layers: %d violations\n", violations; exit 1 }
    print "check_layers: no violations"
  }'
