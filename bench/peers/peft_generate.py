"""Greedy generation of transformers on the CPU, one row: prints a line of JSON with the tokens a second after the first one.

    python bench/peers/peft_generate.py MODEL_DIRECTORY PROMPT TOKENS [float32]

The directory may hold a quantized model (qlora quantize writes one). The end of a text does not stop it.
"""
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging


class Clock:
    """A streamer that notes when tokens come."""

    def __init__(self):
        self.times = []

    def put(self, _):
        self.times.append(time.perf_counter())

    def end(self):
        pass


logging.set_verbosity_error()
logging.disable_progress_bar()
path, prompt, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, (sys.argv[4:] or ["bfloat16"])[0]), device_map="cpu").eval()
ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
clock = Clock()
with torch.no_grad():
    output = model.generate(**ids, do_sample=False, min_new_tokens=count, max_new_tokens=count, pad_token_id=0, streamer=clock)
times = clock.times[1:]  # the first call brings the prompt
print(json.dumps({"tokens_per_second": (len(times) - 1) / (times[-1] - times[0]), "tokens": len(times),
                  "text": tokenizer.decode(output[0][ids["input_ids"].shape[1]:], skip_special_tokens=True)}))
