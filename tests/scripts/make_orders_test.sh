#!/usr/bin/env bash
# The quickstart's rows: as many as asked for, no text in both files, the same for the same seed.
#
#   tests/scripts/make_orders_test.sh PATH_OF_make_orders
set -euo pipefail
make_orders=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

"$make_orders" "$work/one" --train 600 --test 40 >/dev/null
"$make_orders" "$work/same" --train 600 --test 40 >/dev/null
"$make_orders" "$work/other" --train 600 --test 40 --seed 2 >/dev/null

[ "$(wc -l <"$work/one/train.jsonl")" = 600 ] || fail "600 training rows were asked for"
[ "$(wc -l <"$work/one/test.jsonl")" = 40 ] || fail "40 held-out rows were asked for"
cmp -s "$work/one/train.jsonl" "$work/same/train.jsonl" || fail "the same seed gave other training rows"
cmp -s "$work/one/test.jsonl" "$work/same/test.jsonl" || fail "the same seed gave other held-out rows"
if cmp -s "$work/one/train.jsonl" "$work/other/train.jsonl"; then fail "another seed gave the same rows"; fi

texts() { sed 's/.*"role":"user","content":"\([^"]*\)".*/\1/' "$@" | sort; }
[ -z "$(texts "$work"/one/*.jsonl | uniq -d)" ] || fail "a text comes twice"
answers=$(grep -cE '"content":"\{\\"customer\\":\\"[A-Z][a-z]+\\",\\"item\\":\\"[a-z ]+\\",\\"quantity\\":[0-9]+,\\"city\\":\\"[A-Z][a-z]+\\",\\"urgent\\":(true|false)\}"\}\]\}$' \
  "$work/one/train.jsonl")
[ "$answers" = 600 ] || fail "$answers of 600 answers have the five keys in order"
urgent=$(grep -c 'urgent\\":true' "$work/one/train.jsonl")
[ "$urgent" -gt 240 ] && [ "$urgent" -lt 360 ] || fail "$urgent of 600 orders are urgent, about half were expected"
if "$make_orders" /proc/none >/dev/null 2>&1; then fail "a folder that cannot be made is an error"; fi
echo "ok"
