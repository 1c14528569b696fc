#!/usr/bin/env bash
# Packs a finished CPU build for machines without a compiler, into BUILD/packages:
#
#   qlora-VERSION-linux-x86_64.tar.zst  runs from wherever it is unpacked, and brings all but the C library
#   qlora_VERSION_amd64.deb             brings LibTorch and Arrow; the other libraries are Debian packages that it depends on
#
# Both hold the program, recipes, completions, README, documentation and licences. Machines need the C library of the machine
# that built them, or a newer one. Prints the size of each, packed and unpacked.
#
#   scripts/package.sh [BUILD]          (make package)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh
build=${1:-build}
packages=$build/packages
work=$packages/work
arrow_root=$(sed -n 's/^QLORA_ARROW_ROOT:PATH=//p' "$build/CMakeCache.txt")
torch_root=$(sed -n 's/^QLORA_TORCH_ROOT:PATH=//p' "$build/CMakeCache.txt")
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")

check_tools() {
  local tool
  for tool in zstd dpkg-deb readelf strip; do
    command -v "$tool" >/dev/null || fail "$tool is needed to make packages." "apt-get install zstd dpkg binutils"
  done
  [ -x "$build/bin/qlora" ] || fail "$build/bin/qlora is not there." "Build it first: make build"
  if libraries | grep -q libtorch_cuda; then
    fail "packages are made of CPU builds, and $build has CUDA." "Give the folder of a build without -DQLORA_CUDA=ON."
  fi
}

# What the loader finds for the program, one path a line.
libraries() { ldd "$build/bin/qlora" | awk '$3 ~ /^\// {print $3}'; }
# LibTorch's and Arrow's.
bundled_libraries() { libraries | while read -r library; do
  case $(realpath "$library") in "$(realpath "$torch_root")"/* | "$(realpath -m "$arrow_root")"/*) echo "$library" ;; esac
done; }
# Neither these nor the C library's own, which belongs to the machine.
system_libraries() {
  libraries | grep -vxF -f <(bundled_libraries) |
    grep -vE '/(ld-linux-x86-64|libc|libm|libdl|librt|libutil|libpthread|libresolv)\.so'
}

# owner FILE: the Debian package that installed it; files of a merged /usr are recorded without it.
owner() {
  local path
  path=$(realpath "$1")
  { dpkg-query -S "$path" || dpkg-query -S "${path#/usr}"; } 2>/dev/null | sed -n '1s/:.*//p'
}

# put LIBRARY FOLDER: under the name that others ask for, without symbols that only debuggers and linkers read.
put() {
  local name
  name=$(basename "$1")
  strip --strip-unneeded -o "$2/$name" "$(realpath "$1")"
  chmod 644 "$2/$name"
}

# stage ROOT LIBRARIES...: the program with recipes and completions below ROOT, and libraries in ROOT/lib/qlora.
stage() {
  local root=$1 library shell
  shift
  rm -rf "$root"
  cmake --install "$build" --component qlora --prefix "$PWD/$root" >/dev/null
  rm -rf "$root/include" "$root"/lib*
  mkdir -p "$root/lib/qlora"
  strip --strip-unneeded "$root/bin/qlora"
  for library in "$@"; do put "$library" "$root/lib/qlora"; done
  # The program looks beside itself, whoever built it; and what it looks for there looks there in turn.
  printf 'file(RPATH_SET FILE "%s" NEW_RPATH "$ORIGIN/../lib/qlora")\n' "$PWD/$root/bin/qlora" >"$work/rpath.cmake"
  cmake -P "$work/rpath.cmake"
  document "$root/share/doc/qlora"
}

# document FOLDER
document() {
  mkdir -p "$1/licences"
  cp README.md LICENSE "$1"
  cp -r docs "$1/docs"
  cp "$work/licences"/* "$1/licences"
}

# The licences of LibTorch, of the libraries that it brings, and of Arrow stand in the wheels alone.
collect_licences() {
  local wheel library package folder=$work/licences wheels=third_party/wheels
  mkdir -p "$folder"
  if ! compgen -G 'third_party/licences/pyarrow-*' >/dev/null; then
    fetch_wheels scripts/wheels_libtorch.txt "$wheels"
    fetch_wheels scripts/wheels_arrow.txt "$wheels"
    rm -rf third_party/licences.partial
    for wheel in "$wheels"/{torch,nvidia_cuda_runtime,nvidia_cuda_cupti,pyarrow}-*.whl; do
      unzip -q -o "$wheel" '*.dist-info/*' -d third_party/licences.partial
    done
    rm -rf third_party/licences
    mv third_party/licences.partial third_party/licences
    rm -rf "$wheels"
  fi
  for wheel in third_party/licences/*.dist-info; do
    package=$folder/$(basename "$wheel" .dist-info).txt
    find "$wheel" -type f \( -iname '*licen[cs]e*' -o -iname 'notice*' \) -print0 | sort -z |
      while IFS= read -r -d '' file; do printf '==== %s\n\n' "$(basename "$file")" && cat "$file"; done >"$package"
    [ -s "$package" ] || fail "$wheel holds no licence, which a package must bring."
  done
  for library in $(system_libraries); do
    package=$(owner "$library")
    cp -L "/usr/share/doc/$package/copyright" "$folder/$package.txt" || fail "the licence of $library was not found."
  done
}

# sizes PACKAGE FOLDER WORD: "NAME: 105 MB, 430 MB unpacked", FOLDER being what the package holds.
sizes() {
  local megabytes=(du -s --apparent-size --block-size=1000000)
  printf '%s: %s MB, %s MB %s\n' "$1" "$("${megabytes[@]}" "$1" | cut -f1)" "$("${megabytes[@]}" "$2" | cut -f1)" "$3"
}

make_archive() {
  local name=qlora-$version-linux-x86_64
  say "packing $name.tar.zst"
  mapfile -t all < <(bundled_libraries && system_libraries)
  stage "$work/$name" "${all[@]}"
  tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -I 'zstd -12 -T0 -q' -cf "$packages/$name.tar.zst" "$name"
  sizes "$packages/$name.tar.zst" "$work/$name" unpacked
}

# The packages of the libraries that the program and LibTorch name, at least as new as here where a library's name does not
# change with what it offers.
dependencies() { # FILES...
  local library package
  readelf -d "$@" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u | while read -r library; do
    library=$(ldd "$build/bin/qlora" | awk -v name="$library" '$1 == name && $3 ~ /^\// {print $3}')
    [ -n "$library" ] || continue
    package=$(owner "$library")
    [ -n "$package" ] || continue  # LibTorch's and Arrow's own
    case $package in
      libc6 | libstdc++6 | libgcc-s1 | libgomp1)
        echo "$package (>= $(dpkg-query -W -f='${source:Upstream-Version}' "$package"))" ;;
      *) echo "$package" ;;
    esac
  done | sort -u | paste -sd, | sed 's/,/, /g'
}

make_deb() {
  local name=qlora_${version}_amd64 root=$work/deb
  say "packing $name.deb"
  mapfile -t bundled < <(bundled_libraries)
  rm -rf "$root"
  stage "$root/usr" "${bundled[@]}"
  mv "$root/usr/share/doc/qlora/LICENSE" "$root/usr/share/doc/qlora/copyright"
  mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"  # where Debian's zsh looks
  mkdir -p "$root/DEBIAN"
  cat >"$root/DEBIAN/control" <<END
Package: qlora
Version: $version
Architecture: amd64
Maintainer: $(sed -n 's/^Copyright (c) [0-9]* //p' LICENSE)
Section: science
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $(dependencies "$root/usr/bin/qlora" "$root/usr/lib/qlora"/*.so*)
Description: fine-tunes language models with QLoRA
 A YAML recipe goes in, a trained LoRA adapter, resumable checkpoints and verified
 exports come out. The base is frozen in 4 bit. Runs on the CPU; needs no Python.
END
  (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
  dpkg-deb --root-owner-group -Zzstd -z12 --build "$root" "$packages/$name.deb" >/dev/null
  sizes "$packages/$name.deb" "$root/usr" installed
}

mkdir -p "$work"
check_tools
collect_licences
make_archive
make_deb
rm -rf "$work"
