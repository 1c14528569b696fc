"""What the plan of a run's memory says against what the run took, for each kind of block, at about SmolLM2-135M's size.

    python tests/interop/plan_memory.py FOLDER [KIND...] [--program build/bin/qlora]

Made checkpoints (random weights, bfloat16) and rows of 512 tokens; four steps on an NF4 base with LoRA of rank 16, without and with
recomputation of all layers. Prints predicted and measured peaks in MB as the run says them, and a "!" beyond 5 %.

Ran with transformers 5.23.0, torch 2.11.0.
"""
import argparse
import json
import os
import random
import re
import shutil
import subprocess

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from made_model import EOS, save_tokenizer

VOCABULARY, LENGTH = 32000, 512
GQA = dict(vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=24, num_attention_heads=9,
           num_key_value_heads=3, head_dim=64, max_position_embeddings=2048)
MHA = dict(vocab_size=VOCABULARY, hidden_size=576, intermediate_size=2304, num_hidden_layers=24, num_attention_heads=9,
           max_position_embeddings=2048)
KINDS = {
    "llama": ("llama", GQA),
    "gemma2": ("gemma2", GQA | dict(sliding_window=256)),
    "gemma3_text": ("gemma3_text", GQA | dict(sliding_window=256)),
    "olmo2": ("olmo2", GQA),
    "cohere": ("cohere", GQA),
    "phi3": ("phi3", GQA),
    "glm4": ("glm4", GQA),
    "stablelm": ("stablelm", GQA),
    "gpt2": ("gpt2", dict(vocab_size=VOCABULARY, n_embd=576, n_layer=24, n_head=9, n_positions=1024)),
    "gptj": ("gptj", dict(vocab_size=VOCABULARY, n_embd=576, n_layer=24, n_head=9, n_positions=1024, rotary_dim=64)),
    "gpt_neox": ("gpt_neox", MHA),
    "opt": ("opt", MHA | dict(ffn_dim=2304)),
    "opt, as 350m": ("opt", MHA | dict(ffn_dim=2304, do_layer_norm_before=False, word_embed_proj_dim=288)),
    "bloom": ("bloom", dict(vocab_size=VOCABULARY, hidden_size=576, n_layer=24, n_head=9)),
    "mpt": ("mpt", dict(vocab_size=VOCABULARY, d_model=576, n_layers=24, n_heads=9, max_seq_len=2048)),
    "falcon": ("falcon", MHA),
    "mixtral": ("mixtral", GQA | dict(intermediate_size=768, num_local_experts=8, num_experts_per_tok=2)),
    "qwen2_moe": ("qwen2_moe", GQA | dict(moe_intermediate_size=384, shared_expert_intermediate_size=768, num_experts=16,
                                          num_experts_per_tok=4)),
    "qwen3_moe, 3,072 experts": ("qwen3_moe", GQA | dict(moe_intermediate_size=64, num_experts=128, num_experts_per_tok=8)),
    "granitemoe": ("granitemoe", GQA | dict(intermediate_size=768, num_local_experts=8, num_experts_per_tok=2)),
    "olmoe": ("olmoe", GQA | dict(intermediate_size=384, num_experts=16, num_experts_per_tok=4)),
    "gpt_oss": ("gpt_oss", GQA | dict(intermediate_size=768, num_local_experts=8, num_experts_per_tok=2, sliding_window=256)),
    "t5": ("t5", dict(vocab_size=VOCABULARY, d_model=576, d_ff=1536, d_kv=64, num_heads=9, num_layers=12, num_decoder_layers=12,
                      feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)),
}


def make(folder, kind):
    path = os.path.join(folder, re.sub(r"\W+", "_", kind))
    if os.path.exists(os.path.join(path, "model.safetensors")):
        return path
    family, keys = KINDS[kind]
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, **keys, bos_token_id=1, eos_token_id=EOS, pad_token_id=0 if family == "t5" else None)
    kind_of_model = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    kind_of_model.from_config(config).to(torch.bfloat16).save_pretrained(path)
    save_tokenizer(path)
    return path


def rows(folder, family):
    """For an encoder and a decoder half of the tokens each."""
    is_t5 = family == "t5"
    path = os.path.join(folder, "rows_t5.jsonl" if is_t5 else "rows.jsonl")
    generator = random.Random(1)
    with open(path, "w") as file:
        for _ in range(32):
            ids = [generator.randrange(2, 250) for _ in range(LENGTH - 1)] + [EOS]
            row = {"input_ids": ids[:LENGTH // 2], "labels": ids[LENGTH // 2:]} if is_t5 else {"input_ids": ids, "labels": ids}
            file.write(json.dumps(row) + "\n")
    return path


def run(program, model, data, recompute, folder):
    output = os.path.join(folder, "run")
    shutil.rmtree(output, ignore_errors=True)
    recipe = os.path.join(folder, "recipe.yaml")
    with open(recipe, "w") as file:
        json.dump({"model": {"path": model}, "quantization": {"method": "nf4", "double_quant": True},
                   "lora": {"rank": 16, "alpha": 32}, "data": {"train": [{"path": data, "format": "pretokenized"}],
                                                               "sequence_length": LENGTH, "packing": False},
                   "optim": {"name": "paged_adamw_8bit"},
                   "train": {"max_steps": 4, "micro_batch_size": 2, "gradient_checkpointing": recompute},
                   "output": {"dir": output}}, file)
    done = subprocess.run([program, "train", recipe], capture_output=True, text=True)
    found = re.search(r"memory: (\d+) MB predicted, (\d+) MB measured", done.stdout + done.stderr)
    if not found:
        raise SystemExit(f"{model}: {(done.stderr or done.stdout)[-400:]}")
    return int(found[1]), int(found[2])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--program", default="build/bin/qlora")
    given = parser.parse_args()
    os.makedirs(given.folder, exist_ok=True)
    print("| block | kept: predicted, measured (MB) | recomputed: predicted, measured (MB) |\n|---|---|---|")
    for kind in given.kinds or KINDS:
        cells = []
        for recompute in (False, True):
            predicted, measured = run(given.program, make(given.folder, kind), rows(given.folder, KINDS[kind][0]), recompute, given.folder)
            off = predicted / measured - 1
            cells.append(f"{predicted}, {measured} ({off:+.1%}{'' if abs(off) <= 0.05 else ' !'})")
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
