#!/usr/bin/env bash
# Tries what `make package` made on a machine without a compiler: a minimal Debian in a folder of its own. Unpacks the archive
# there (elsewhere than it was made for), installs the .deb, and trains two steps with each. Needs root, debootstrap and a Debian
# mirror; a given ROOT is taken as it is and kept.
#
#   tests/install/check_package.sh PACKAGES MODEL.gguf ROWS.jsonl [ROOT]
set -euo pipefail
packages=$(realpath "$1") model=$(realpath "$2") rows=$(realpath "$3")
root=${4:-}
if [ -z "$root" ]; then
  root=$(mktemp -d)
  trap 'umount "$root/proc" 2>/dev/null; rm -rf "$root"' EXIT
  debootstrap --variant=minbase bookworm "$root" >"$root.log" || { cat "$root.log"; exit 1; }
fi
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }

mkdir -p "$root/try"
[ -e "$root/proc/self" ] || mount -t proc proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$model" "$root/try/model.gguf"
cp "$rows" "$root/try/rows.jsonl"
cat >"$root/try/recipe.yaml" <<'END'
model: {path: model.gguf}
quantization: {method: nf4, double_quant: true}
data: {train: [{path: rows.jsonl, format: chat}], sequence_length: 256}
train: {max_steps: 2}
output: {dir: run}
END
if inside sh -c 'command -v gcc || command -v g++'; then echo "the machine has a compiler, and shall have none" >&2; exit 1; fi

# train PROGRAM
train() {
  rm -rf "$root/try/run"
  inside "$1" train /try/recipe.yaml
  [ -s "$root/try/run/adapter/adapter_model.safetensors" ] || { echo "$1 wrote no adapter" >&2; exit 1; }
}

echo "== archive"
rm -rf "$root/try/unpacked" && mkdir "$root/try/unpacked"
tar -C "$root/try/unpacked" --zstd -xf "$packages"/qlora-*.tar.zst
mv "$root"/try/unpacked/qlora-* "$root/try/unpacked/moved"
missing=$(inside ldd /try/unpacked/moved/bin/qlora | grep 'not found' || true)
[ -z "$missing" ] || { echo "the archive lacks: $missing" >&2; exit 1; }
train /try/unpacked/moved/bin/qlora

echo "== .deb"
cp "$packages"/qlora_*.deb "$root/try/qlora.deb"
inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends /try/qlora.deb >"$root/try/apt.log" 2>&1 || { cat "$root/try/apt.log"; exit 1; }
train /usr/bin/qlora
echo "ok"
