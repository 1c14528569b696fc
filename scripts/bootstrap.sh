#!/usr/bin/env bash
# Installs what the build needs: system packages (apt), LibTorch and Apache Arrow (from PyPI, into third_party/libtorch
# and third_party/arrow).
# Safe to repeat and to interrupt; done work is not done again.
#
#   scripts/bootstrap.sh             what a CPU build needs; with nvcc in PATH also what a CUDA build links
#   scripts/bootstrap.sh --cuda      also what a CUDA build needs to run (2.5 GB more)
#   scripts/bootstrap.sh --packages  only prints the names of the system packages
#
# QLORA_PARQUET=OFF leaves Arrow out; the build then needs -DQLORA_PARQUET=OFF (make does both: make QLORA_PARQUET=OFF).
# QLORA_WHEELS=FOLDER takes the wheels of scripts/wheels_*.txt from FOLDER instead of the network.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

packages=(
  g++ cmake ninja-build ccache git pkg-config unzip python3 python3-pip ca-certificates
  libsentencepiece-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev
  libpcre2-dev libxxhash-dev zlib1g-dev libzstd-dev libedit-dev libgtest-dev libgmock-dev libbenchmark-dev clang-format
)

# Each level holds the ones before it: cpu (runs on a CPU), link (a CUDA build links), cuda (and runs).
parse_arguments() {
  level=cpu
  if command -v nvcc >/dev/null; then level=link; fi
  case ${1:-} in
    "") ;;
    --cuda) level=cuda ;;
    --packages) printf '%s\n' "${packages[@]}"; exit ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/bootstrap.sh; [ "$1" = --help ] && exit 0 || exit 2 ;;
  esac
}

check_machine() {
  [ "$(uname -s)" = Linux ] && [ "$(uname -m)" = x86_64 ] ||
    fail "Linux on x86-64 is needed, this is $(uname -s) on $(uname -m)." \
      "The pinned LibTorch wheels exist for that platform only."
}

install_packages() {
  local missing=() package as_root=()
  if ! command -v apt-get >/dev/null; then
    say "this distribution has no apt; the build needs its equivalents of these Debian packages:"
    printf '  %s\n' "${packages[*]}" | fold -s -w 98
    return
  fi
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "system packages are missing, and neither root nor sudo is at hand. As root, run:" \
      "apt-get install ${missing[*]}"
    as_root=(sudo env DEBIAN_FRONTEND=noninteractive)
  fi
  export DEBIAN_FRONTEND=noninteractive
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || say "apt-get update failed; trying with the package lists at hand"
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || fail \
    "apt-get could not install the packages (its reason stands above)." \
    "The build was tried on Debian 12. By hand: apt-get install ${missing[*]}"
}

# at_least VERSION MINIMUM
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

check_versions() {
  local cmake gxx
  command -v cmake >/dev/null && command -v g++ >/dev/null && command -v pkg-config >/dev/null ||
    fail "cmake, g++ and pkg-config are needed and not all in PATH."
  cmake=$(cmake --version | sed -n '1s/.* //p')
  gxx=$(g++ -dumpfullversion)
  at_least "$cmake" 3.25 || fail "cmake 3.25 or newer is needed, found $cmake." \
    "A newer one comes with: python3 -m pip install cmake   (then put it first in PATH)"
  at_least "$gxx" 12 || fail "g++ 12 or newer is needed, found $gxx." "Install g++-12 and set CXX=g++-12."
}

has_level() {
  [ -e "$libtorch/torch/lib/libtorch_cpu.so" ] && grep -qs "^$pins .* $1 " "$libtorch/complete"
}

unpack() {
  local wheel=$1
  shift
  unzip -q -o "$wheel" "$@" -d "$unpacked" || fail "could not unpack $wheel (its reason stands above)." \
    "When the disk is full, free some space; then run the same command again."
}

# What is unpacked first gets its name last, so a folder called libtorch is complete.
install_libtorch() {
  local wheels=third_party/wheels wheel levels=" cpu " cuda_libraries=()
  unpacked=third_party/libtorch.partial
  rm -rf "$unpacked"
  require_space "$([ "$level" = cuda ] && echo 9000 || echo 2500)" third_party
  fetch_wheels scripts/wheels_libtorch.txt "$wheels"
  [ "$level" != cuda ] || fetch_wheels scripts/wheels_cuda.txt "$wheels"
  if [ "$level" != cpu ]; then
    levels+="link "
    cuda_libraries=('torch/lib/lib*_cuda*.so' torch/lib/libtorch_nvshmem.so torch/lib/libcaffe2_nvrtc.so)
  fi
  [ "$level" != cuda ] || levels+="cuda "
  say "unpacking LibTorch into $libtorch"
  # Without the wheel's libgomp: the compiler's own is the same library, and a process must have one.
  unpack "$wheels"/torch-*.whl 'torch/include/*' torch/lib/libc10.so torch/lib/libtorch_cpu.so "${cuda_libraries[@]}"
  unpack "$wheels"/nvidia_cuda_runtime-*.whl '*/lib/libcudart.so*'
  unpack "$wheels"/nvidia_cuda_cupti-*.whl '*/lib/libcupti.so*'
  if [ "$level" = cuda ]; then
    for wheel in $(sed -n 's/==.*//p' scripts/wheels_cuda.txt | tr - _); do
      unpack "$wheels/$wheel"-*.whl '*/lib/*.so*'
    done
  fi
  printf '%s has%s\n' "$pins" "$levels" >"$unpacked/complete"
  rm -rf "$libtorch"
  mv "$unpacked" "$libtorch"
  rm -rf "$wheels"
}

# Arrow's C++ libraries and headers, without what the wheel has for Python.
install_arrow() {
  local wheels=third_party/wheels
  unpacked=third_party/arrow.partial
  rm -rf "$unpacked"
  require_space 250 third_party
  fetch_wheels scripts/wheels_arrow.txt "$wheels"
  say "unpacking Arrow into third_party/arrow"
  unpack "$wheels"/pyarrow-*.whl 'pyarrow/include/arrow/*' 'pyarrow/include/parquet/*' \
    'pyarrow/libarrow.so.*' 'pyarrow/libparquet.so.*'
  printf '%s\n' "$arrow_pin" >"$unpacked/complete"
  rm -rf third_party/arrow
  mv "$unpacked" third_party/arrow
  rm -rf "$wheels"
}

parse_arguments "$@"
check_machine
install_packages
check_versions
libtorch=third_party/libtorch
mkdir -p third_party
exec 9>third_party/lock
flock 9  # two builds at once: the second waits for the first
pins=$(echo layout 1 | cat - scripts/wheels_libtorch.txt scripts/wheels_cuda.txt | sha256sum | cut -c1-16)
if ! has_level "$level"; then install_libtorch; fi
arrow_pin=$(sha256sum <scripts/wheels_arrow.txt | cut -c1-16)
if [ "${QLORA_PARQUET:-ON}" != OFF ] && ! grep -qsx "$arrow_pin" third_party/arrow/complete; then install_arrow; fi
