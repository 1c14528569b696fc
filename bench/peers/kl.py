"""How far models are from another on the same rows: mean KL divergence a token, and how often the likeliest token is the same.

    python bench/peers/kl.py MODEL ROWS.jsonl OTHER_MODEL...

All are directories of unquantized weights; logits are computed by transformers in float32, at every token of the rendered chat rows.
Ran with transformers 5.23.0, torch 2.11.0.
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

logging.set_verbosity_error()
logging.disable_progress_bar()
reference, rows, *others = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(reference)
texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in open(rows)]


def log_probabilities(path):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        for text in texts:
            yield model(torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])).logits[0].log_softmax(-1)


for path in others:
    divergence, same, tokens = 0.0, 0, 0
    for p, q in zip(log_probabilities(reference), log_probabilities(path), strict=True):
        divergence += (p.exp() * (p - q)).sum().item()
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        tokens += len(p)
    print(f"{path}: KL {divergence / tokens:.4f} nats a token, top-1 agreement {100 * same / tokens:.2f} % of {tokens} tokens", flush=True)
