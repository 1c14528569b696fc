"""Token ids of texts by Hugging Face tokenizers, all rows in one batch: tokenize_rows.py TOKENIZER.json < STRINGS.jsonl > IDS.jsonl"""
import json
import sys

from tokenizers import Tokenizer

texts = [json.loads(line) for line in sys.stdin]
for row in Tokenizer.from_file(sys.argv[1]).encode_batch_fast(texts):
    sys.stdout.write(json.dumps(row.ids) + "\n")
