#!/usr/bin/env bash
# Orders whose held-out half is harder than the quickstart's: every item and city in it is new.
#
#   bench/held_out_orders.sh MAKE_ORDERS FOLDER      FOLDER/train.jsonl (400 rows), FOLDER/eval.jsonl (32 rows)
#
# The same orders each time. MAKE_ORDERS is build/bin/make_orders.
set -euo pipefail
make_orders=$1 folder=$2
items='tool boxes|batteries|pillows|garden chairs|camera lenses|silk scarves|blue folders|tents'
cities='Osaka|Prague|Seville|Tallinn|Utrecht|Vienna|Warsaw|Toronto|Zagreb|Accra'
mkdir -p "$folder"
"$make_orders" "$folder" --train 2000 --test 0 --seed 7 >/dev/null
rm "$folder/test.jsonl"
mv "$folder/train.jsonl" "$folder/all.jsonl"
awk -v n=400 "!/$items|$cities/ && ++rows <= n" "$folder/all.jsonl" >"$folder/train.jsonl"
awk -v n=32 "/$items/ && /$cities/ && ++rows <= n" "$folder/all.jsonl" >"$folder/eval.jsonl"
rm "$folder/all.jsonl"
wc -l "$folder"/*.jsonl
