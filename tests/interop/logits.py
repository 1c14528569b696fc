# make interop: QLORA_INTEROP_LOGITS=$BUILD/bin/interop_logits $PYTHON tests/interop/logits.py $WORK $INTEROP_MODEL
"""Single logits against transformers, fp32, on made models of every shape the Llama family allows, and on a real one.

    QLORA_INTEROP_LOGITS=build/bin/interop_logits python tests/interop/logits.py FOLDER [MODEL_DIRECTORY]

FOLDER is where the made models are written. Each is run on three documents laid end to end; transformers gets them one by one,
so that a packed document that saw another would show. Fails if a logit differs by more than 1e-4.

Ran with transformers 5.23.0, torch 2.11.0; what it printed is in docs/interop.md.
"""
import os
import subprocess
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, logging

PROGRAM = os.environ.get("QLORA_INTEROP_LOGITS", "build/bin/interop_logits")
LENGTHS = (1, 37, 190)
BASE = dict(vocab_size=311, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=6, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
MADE = {
    "plain": {},
    "grouped queries, tied embeddings": dict(num_key_value_heads=2, tie_word_embeddings=True),
    "one key-value head": dict(num_key_value_heads=1),
    "biases": dict(attention_bias=True, mlp_bias=True),
    "head size other than hidden / heads": dict(head_dim=32),
    "RoPE linear": dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "RoPE llama3": dict(rope_parameters=LLAMA3, num_key_value_heads=3),
    "sharded": dict(num_key_value_heads=2),
}


def made(name, folder):
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**{**BASE, **MADE[name]})).float()
    for parameter in model.parameters():  # norms and biases too, so that none is 1 or 0; spread as in trained models
        torch.nn.init.normal_(parameter, std=0.5 if parameter.dim() == 1 else 0.15)
    path = os.path.join(folder, name.replace(" ", "_").replace("/", "_"))
    model.save_pretrained(path, max_shard_size="200KB" if name == "sharded" else "5GB")
    shards = [file for file in os.listdir(path) if file.endswith(".safetensors")]
    assert (len(shards) > 1) == (name == "sharded"), shards
    return path


def compare(name, path, folder):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    vocabulary = model.config.vocab_size
    ids = torch.randint(0, vocabulary, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = torch.cat([model(part[None]).logits[0] for part in ids.split(LENGTHS)])
    tokens, output = os.path.join(folder, "tokens.bin"), os.path.join(folder, "logits.bin")
    ids.to(torch.int32).numpy().tofile(tokens)
    subprocess.run([PROGRAM, path, "-", "none", "float32", tokens, output, *map(str, LENGTHS)], check=True)
    found = torch.from_numpy(np.fromfile(output, dtype=np.float32)).view(-1, vocabulary)
    difference = (found - expected).abs().max().item()
    print(f"{name:40} largest logit {expected.abs().max():7.2f}, largest difference {difference:.2e}")
    return difference


logging.disable_progress_bar()
folder = sys.argv[1]
worst = [compare(name, made(name, folder), folder) for name in MADE]
if len(sys.argv) > 2:
    worst.append(compare("the given model", sys.argv[2], folder))
sys.exit(max(worst) > 1e-4)
