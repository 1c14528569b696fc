# Shared by bootstrap.sh and quickstart.sh (sourced): messages, and pinned wheels from PyPI.
# Python is only the downloader here; nothing that is built or run needs it.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }
fail() {
  printf '%s: %s\n' "$(basename "$0" .sh)" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

# A python3 that has pip: the one in PATH, the system's, or a virtual environment of our own.
find_pip() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -m pip --version >/dev/null 2>&1 && { echo "$python"; return; }
  done
  python=third_party/downloader
  [ -x "$python/bin/python" ] || python3 -m venv "$python" >/dev/null 2>&1 || { rm -rf "$python"; return 1; }
  echo "$python/bin/python"
}

# fetch_wheels REQUIREMENTS FOLDER: downloads each wheel that FOLDER lacks. A wheel at a time, so that
# an interrupted download keeps the finished ones; without pip's cache, which old pips hold in memory.
# With QLORA_WHEELS set, from that folder instead of the network.
fetch_wheels() {
  local requirements=$1 folder=$2 python platform one log options=()
  python=$(find_pip) || fail "python3 with pip (or venv) is needed to download from PyPI." \
    "Install it with: apt-get install python3-pip"
  for platform in manylinux_2_{28,27,26,25,24,18,17,12}_x86_64 manylinux2014_x86_64 manylinux2010_x86_64; do
    options+=(--platform "$platform")
  done
  [ -z "${QLORA_WHEELS:-}" ] || options+=(--no-index --find-links "$QLORA_WHEELS")
  mkdir -p "$folder"
  one=$(mktemp "$folder/requirement.XXXXXX") && log=$one.log
  while read -r requirement; do
    printf '%s\n' "$requirement" >"$one"
    say "fetching ${requirement%% *}"
    if ! TMPDIR=$folder "$python" -m pip download --quiet --no-cache-dir --no-deps --require-hashes \
      --only-binary=:all: --implementation cp --python-version 3.11 "${options[@]}" \
      --dest "$folder" --requirement "$one" >"$log" 2>&1 </dev/null; then
      explain_download_failure "${requirement%% *}" "$log"
    fi
  done < <(grep -v '^#' "$requirements")
  rm -f "$one" "$log"
}

explain_download_failure() {
  local package=$1 log=$2 why
  tail -5 "$log" | sed 's/^/  pip: /' >&2
  case $(cat "$log") in
    *"No space left"*) why="The disk is full: free some space and run the same command again." ;;
    *"DO NOT MATCH THE HASHES"*) why="What came is not the file that is pinned here; a proxy or mirror may have changed it." ;;
    *) why="Is the network up, and PyPI or its mirror (PIP_INDEX_URL) reachable? Then run the same command again." ;;
  esac
  rm -f "$log"
  fail "could not download $package." "$why" \
    "Without a network: download the wheels named in scripts/wheels_*.txt elsewhere and set QLORA_WHEELS to their folder."
}

# require_space MEGABYTES FOLDER
require_space() {
  local free
  free=$(df --output=avail --block-size=1M "$2" | tail -1 | tr -d ' ')
  [ "$free" -ge "$1" ] || fail "$1 MB of free disk space are needed in $2, $free MB are left."
}
