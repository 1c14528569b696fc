#!/usr/bin/env bash
# Writes what shells need to complete qlora's commands and options, as the program's --help tells them; other words are
# completed as files. Called by cmake --install.
#
#   scripts/completions.sh PROGRAM SHARE
#
# SHARE/bash-completion/completions/qlora, SHARE/zsh/site-functions/_qlora, SHARE/fish/vendor_completions.d/qlora.fish
set -euo pipefail
program=$1 share=$2
help=$(mktemp -d)
trap 'rm -rf "$help"' EXIT
export COLUMNS=10000  # a description on one line

# Reads --help and prints lines "kind<TAB>name<TAB>description", where kind is option or command.
read_help() {
  awk -v OFS='\t' '
    /^[A-Z][A-Za-z]*:$/ { section = $1; next }
    /^  [^ ]/ && (section == "Options:" || section == "Subcommands:") {
      description = $0
      sub(/^  [^ ]+ */, "", description)
      # What stands before the description of an option: its type, default and demands.
      if (section == "Options:")
        while (match(description, /^(TEXT|INT|UINT|FLOAT|\[[^]]*\]|:[^ ]+|REQUIRED|\.\.\.|x [0-9]+|Excludes: [^ ]+|Needs: [^ ]+) */))
          description = substr(description, RLENGTH + 1)
      count = split($1, name, ",")
      for (i = 1; i <= count; i++) {
        sub(/\{.*/, "", name[i])  # the value that a flag stands for
        if (name[i] !~ /^-[^-]/) print (section == "Options:" ? "option" : "command"), name[i], description
      }
    }'
}
# names KIND [COMMAND], on one line; without a command those of the program.
names() { awk -F '\t' -v kind="$1" '$1 == kind {printf "%s%s", separator, $2; separator = " "}' "$help/${2:-qlora}"; }

for_bash() {
  local command nested
  echo '# Completes qlora in bash; written by scripts/completions.sh.'
  echo '_qlora() {'
  echo '  local word=${COMP_WORDS[COMP_CWORD]} words='
  echo '  case $COMP_CWORD:${COMP_WORDS[1]}:$word in'
  echo "    1:*) words=\"$commands $(names option)\" ;;"
  for command in $commands; do
    echo "    *:$command:-*) words=\"$(names option "$command")\" ;;"
    nested=$(names command "$command")
    [ -z "$nested" ] || echo "    2:$command:*) words=\"$nested\" ;;"
  done
  echo '  esac'
  echo '  COMPREPLY=($(compgen -W "$words" -- "$word"))'
  echo '}'
  echo 'complete -o default -F _qlora qlora'
}

for_zsh() {
  local command
  echo '#compdef qlora'
  echo '# Completes qlora in zsh; written by scripts/completions.sh.'
  echo 'local -a commands=('
  awk -F '\t' -v q="'" '$1 == "command" {gsub(q, q "\\" q q, $3); gsub(/:/, "\\:", $3); print "  " q $2 ":" $3 q}' "$help/qlora"
  echo ')'
  echo 'if ((CURRENT == 2)); then _describe command commands; return; fi'
  echo 'case $words[2] in'
  for command in $commands; do
    echo "  $command) _arguments \\"
    awk -F '\t' -v q="'" '
      $1 == "option" {gsub(q, q "\\" q q, $3); gsub(/[\[\]:]/, "\\\\&", $3); print "      " q "*" $2 "[" $3 "]" q " \\"}' "$help/$command"
    echo "      '*:file:_files' ;;"
  done
  echo 'esac'
}

for_fish() {
  local command
  echo '# Completes qlora in fish; written by scripts/completions.sh.'
  awk -F '\t' -v q="'" '$1 == "command" {
    gsub(q, "\\" q, $3); print "complete -c qlora -n __fish_use_subcommand -f -a " $2 " -d " q $3 q }' "$help/qlora"
  for command in $commands; do
    awk -F '\t' -v q="'" -v command="$command" '$1 == "option" {
      gsub(q, "\\" q, $3)
      print "complete -c qlora -n " q "__fish_seen_subcommand_from " command q " -l " substr($2, 3) " -d " q $3 q }' "$help/$command"
  done
}

# write SHELL FILE
write() {
  mkdir -p "$(dirname "$share/$2")"
  "for_$1" >"$share/$2"
}

"$program" --help | read_help >"$help/qlora"
commands=$(names command)
[ -n "$commands" ] || { echo "completions: $program --help lists no commands, which is what they are made of" >&2; exit 1; }
for command in $commands; do "$program" "$command" --help | read_help >"$help/$command"; done
write bash bash-completion/completions/qlora
write zsh zsh/site-functions/_qlora
write fish fish/vendor_completions.d/qlora.fish
