#!/usr/bin/env bash
# Lets bash complete as a user would who presses the tab key, with what qlora completion writes, and lets zsh, fish and man read theirs.
#
#   tests/scripts/completions_test.sh PATH_OF_qlora
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for shell in bash zsh fish; do "$1" completion $shell --output "$work/$shell/qlora"; done
. "$work/bash/qlora"
failures=0

# completed WORD...: what the last word becomes.
completed() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
  _qlora
  echo "${COMPREPLY[*]-}"
}
# expect CLAIM FOUND EXPECTED
expect() { [ "$2" = "$3" ] || { echo "$1: expected '$3', found '$2'"; failures=$((failures + 1)); }; }

expect "a command is completed" "$(completed qlora tra)" train
expect "commands that begin alike are all offered" "$(completed qlora re)" "resume report recipes render reference"
expect "an option of a command is completed" "$(completed qlora train r.yaml --overw)" --overwrite
expect "an option of another command is not" "$(completed qlora resume --overw)" ""
expect "a command of a command is completed" "$(completed qlora inspect da)" data
expect "an option of a command of a command is completed" "$(completed qlora inspect data my.yaml --no-c)" --no-colour
expect "a value is completed where only some are taken" "$(completed qlora evaluate run --compute-dtype bf)" bfloat16
expect "the value of another option is left to the shell" "$(completed qlora train my.yaml --set -)" ""
expect "a place that takes some words alone is completed" "$(completed qlora completion z)" zsh
expect "other words are left to the shell, as files" "$(completed qlora train my)" ""
for command in $("$1" --help | sed -n '/^Subcommands:/,$s/^  \([a-z]*\) .*/\1/p'); do
  for file in "$work"/*/qlora; do grep -q "\b$command\b" "$file" || { echo "$file lacks $command"; failures=$((failures + 1)); }; done
done

# What the programs that read these files say of them, where they are there.
has() { command -v "$1" >/dev/null || { echo "no $1 here: what it reads is not checked"; return 1; }; }
fails() { echo "$1"; failures=$((failures + 1)); }
if has zsh; then zsh -fn "$work/zsh/qlora" || fails "zsh does not parse its completion"; fi
if has fish; then HOME=$work fish -n "$work/fish/qlora" || fails "fish does not parse its completion"; fi
if has man && has groff; then
  "$1" man --output "$work/man" >/dev/null
  for page in "$work"/man/*; do
    said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null) || said+=" exit code $?"
    [ -z "$said" ] || fails "man of ${page##*/}: $said"
  done
fi
[ "$failures" -eq 0 ] || exit 1
echo "ok"
