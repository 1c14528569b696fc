# What bench/gpu.sh carries to a machine without a compiler, and how it is used there; read by that script, whose variables it takes.
# shellcheck shell=bash disable=SC2154

pack_programs() {
  local stage program name path size
  stage=$(mktemp -d)
  trap "rm -rf '$stage'" EXIT
  mkdir -p "$stage/bin" "$stage/lib" "$stage/python" "$(dirname "$pack")"
  for program in "${programs[@]}"; do
    [ -x "$build/bin/$program" ] || fail "$build/bin/$program is not there; --help says how it is built"
    strip -o "$stage/bin/$program" "$build/bin/$program"
  done
  ! readelf -d "$stage/bin/qlora" | grep libarrow >/dev/null || fail "$build is built with Parquet, whose library is too large to be carried;" \
    "configure it with -DQLORA_PARQUET=OFF"
  while read -r name path; do
    case $name in
      libc.so.* | libm.so.* | libstdc++.so.* | libgcc_s.so.* | libpthread.so.* | libdl.so.* | librt.so.*) ;;
      libtorch* | libc10* | libcu* | libnv*) ;;
      *) cp -L "$path" "$stage/lib/$name" ;;
    esac
  done < <(ldd "${programs[@]/#/$build/bin/}" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u)
  if [ -n "$bitsandbytes" ]; then
    cp -r "$bitsandbytes"/bitsandbytes "$bitsandbytes"/bitsandbytes-*.dist-info "$stage/python"
    find "$stage/python" -name '*.so' ! -name '*_cuda130.so' ! -name '*_cpu.so' -delete
    find "$stage/python" -name __pycache__ -prune -exec rm -rf {} +
  fi
  sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt" >"$stage/source"
  git -C "$root" describe --always --dirty >"$stage/commit" 2>/dev/null || echo unknown >"$stage/commit"
  # A dictionary as long as all programs: their kernels are the same bytes.
  tar -C "$stage" -cf - . | xz -T1 --lzma2=preset=6,dict=128MiB >"$pack"
  size=$(($(stat -c %s "$pack") / 1000000))
  echo "$pack: $size MB; $(ls "$stage/bin" | wc -l) programs, $(ls "$stage/lib" | wc -l) libraries, $(du -sm "$stage" | cut -f 1) MB unpacked"
  [ "$size" -le 50 ] || echo "more than 50 MB, which with the sources may be more than can be carried" >&2
}

# The tests read files of the sources, by the path that these had where they were compiled.
link_sources() {
  local source
  [ -e "$build/source" ] || return 0
  source=$(cat "$build/source")
  [ -e "$source/tests/data" ] || { mkdir -p "$(dirname "$source")" && ln -sfn "$root" "$source"; } || true
  [ -e "$source/tests/data" ] || fail "the tests read files of $source, which cannot be made a link to $root"
}

unpack_programs() {
  local folder
  folder=$(dirname "$out")/carried
  if [ ! -e "$folder/complete" ] || [ "$carried" -nt "$folder/complete" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    tar -C "$folder" -xJf "$carried" 2>/dev/null || "$python" -m tarfile -e "$carried" "$folder" || fail "$carried cannot be unpacked"
    touch "$folder/complete"
  fi
  build=$folder
  [ ! -d "$folder/python/bitsandbytes" ] || export PYTHONPATH=$folder/python${PYTHONPATH:+:$PYTHONPATH}
}

# Of these two, which link what any of the programs does.
missing_libraries() { ldd "$build/bin/qlora" "$build/bin/test_recipes" 2>/dev/null | awk '/not found/ {print $1}' | sort -u; }

# Programs that do not find what they link get the libraries of Python's torch, and of those carried what the machine has not.
find_libraries() {
  local torch folder name round
  [ -n "$(missing_libraries)" ] || return 0
  torch=$("$python" -c 'import importlib.util; print(importlib.util.find_spec("torch").submodule_search_locations[0])') ||
    fail "the programs miss $(missing_libraries | tr '\n' ' ')and $python has no torch"
  grep -q "^__version__ = '2\.11\." "$torch/version.py" || echo "the programs were built for torch 2.11, $torch is another" >&2
  for folder in "$torch/lib" "${torch%/*}"/nvidia/*/lib "${torch%/*}/torch.libs"; do
    [ ! -d "$folder" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
  done
  rm -rf "$build/missing"
  mkdir -p "$build/missing"
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$build/missing
  for round in 1 2 3; do  # those of those
    for name in $(missing_libraries); do
      [ ! -e "$build/lib/$name" ] || ln -sf "$build/lib/$name" "$build/missing/$name"
    done
  done
  [ -z "$(missing_libraries)" ] || fail "libraries are missing: $(missing_libraries | tr '\n' ' ')"
}
