# make interop: QLORA=$QLORA $PYTHON tests/interop/peft_training.py $WORK $INTEROP_MODEL
"""Whole fp32 trainings against PEFT: the same base, adapter (random A and B) and rows, 20 AdamW steps, then the adapters' difference.

    QLORA=build/bin/qlora python tests/interop/peft_training.py FOLDER [MODEL_DIRECTORY]

The peer's loop is torch's AdamW and clip_grad_norm_ on PEFT's model, rows one by one, gradients summed over a step and divided
by its supervised tokens. Each adapter of ours must load in PEFT as the very tensors of its file, and its merged export must be the
same model in transformers. FOLDER takes made models, adapters and runs. With MODEL_DIRECTORY a real model is trained too.
Fails if a weight of the final adapter differs by more than 1 % of the largest change the training made to any, or a loss by 1e-4,
or if the first step's gradient of any tensor points elsewhere (cosine below 0.9999).
(Adam divides by the root of the squared gradient, so a gradient that is nearly zero may turn a last-bit difference into a step.)

Ran with transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, torch 2.11.0; what it printed is in docs/interop.md.
"""
import json
import os
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup, logging

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")
STEPS, ROWS_A_STEP = 20, 6
PREFIX = "base_model.model."
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# A matrix trained whole has thousands of gradients near zero, where Adam's root would turn last bits into steps: a larger epsilon.
WHOLE = {"optim.eps": 1e-5}
TOKENS = [199, 5, EOS, 230]  # the last one is in no row
CASES = {  # recipe keys of ours; what the peer does follows from them
    "16-bit base, linear schedule, clipped": {},
    "the same, recomputed layers": {"train.gradient_checkpointing": "true"},
    "the same, packed": {"data.packing": "true"},
    "cosine schedule, weight decay, not clipped":
        {"optim.schedule": "cosine", "optim.weight_decay": 0.1, "optim.max_grad_norm": 0},
    "rsLoRA, adapters on q and v": {"rslora": True, "targets": ["q_proj", "v_proj"]},
    "NF4 base with double quantization": {"quantization.method": "nf4"},
    "DoRA": {"dora": True},
    "DoRA on an NF4 base": {"dora": True, "quantization.method": "nf4"},
    "all biases": {"bias": "all"},
    "embeddings and norms, untied": {**WHOLE, "untied": True, "peft": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]}},
    "embedding parted from its head": {**WHOLE, "peft": {"modules_to_save": ["embed_tokens"]}},
    "head parted from its embedding": {**WHOLE, "peft": {"modules_to_save": ["lm_head", "model.norm"]}},
    "both parted": {**WHOLE, "peft": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
                    "train.gradient_checkpointing": "true"},
    "tied embeddings trained as one": {**WHOLE, "peft": {"modules_to_save": ["embed_tokens", "norm"], "ensure_weight_tying": True}},
    "a linear module trained whole": {**WHOLE, "peft": {"modules_to_save": ["o_proj"]}, "biased": True},
    "a head trained whole on an NF4 base": {**WHOLE, "peft": {"modules_to_save": ["lm_head"]}, "quantization.method": "nf4"},
    "tokens, untied": {"untied": True, "peft": {"trainable_token_indices": TOKENS}},
    "tokens, tied": {"peft": {"trainable_token_indices": TOKENS}},
    "tokens, tied, beneath an adapter on the head": {"targets": ["q_proj", "lm_head"], "peft": {"trainable_token_indices": TOKENS}},
    "tokens of the head, tied": {"peft": {"trainable_token_indices": {"lm_head": TOKENS}}},
    "other tokens of embedding and head": {"peft": {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": TOKENS[:2]}}},
    "an adapter on the head": {"targets": ["q_proj", "lm_head"]},
    "biases of adapted layers": {"bias": "lora_only", "targets": ["q_proj", "v_proj", "down_proj"]},
    "rank and alpha patterns": {"rank_pattern": {"q_proj": 7, "layers.1.mlp.down_proj": 2}, "alpha_pattern": {"v_proj": 20}},
    "rsLoRA with a rank pattern, DoRA": {"rslora": True, "dora": True, "rank_pattern": {"o_proj": 9}},
}


def load(path, keys):
    if keys.get("quantization.method") != "nf4":
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                      bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, quantization_config=quantization, device_map="cpu")


def make_adapter(model_dir, path, keys):
    torch.manual_seed(11)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), LoraConfig(
        r=4, lora_alpha=8, target_modules=keys.get("targets", NAMES), use_rslora=keys.get("rslora", False),
        use_dora=keys.get("dora", False), bias=keys.get("bias", "none"), rank_pattern=keys.get("rank_pattern", {}),
        alpha_pattern=keys.get("alpha_pattern", {}), task_type="CAUSAL_LM", **keys.get("peft", {})))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        if "magnitude" in name:
            parameter.data.mul_(1 + 0.1 * torch.rand_like(parameter))
    model.save_pretrained(path)


def train_peer(model_dir, adapter, rows, keys, lr):
    model = PeftModel.from_pretrained(load(model_dir, keys), adapter, is_trainable=True)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, eps=keys.get("optim.eps", 1e-8),
                                  weight_decay=keys.get("optim.weight_decay", 0.0))
    course = get_cosine_schedule_with_warmup if keys.get("optim.schedule") == "cosine" else get_linear_schedule_with_warmup
    schedule = course(optimizer, 3, STEPS)
    losses, norms = [], []
    for step in range(STEPS):
        first = step * ROWS_A_STEP % len(rows)
        batch = rows[first:first + ROWS_A_STEP]
        supervised = sum(label != -100 for row in batch for label in row["labels"][1:])
        total = 0.0
        for row in batch:
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"][1:]), reduction="sum") / supervised
            loss.backward()
            total += loss.item()
        if step == 0:
            gradient = {file_name(name): p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        norm = torch.nn.utils.clip_grad_norm_(parameters, keys.get("optim.max_grad_norm", 0.5) or float("inf"))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
        norms.append(norm.item())
    return losses, norms, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}, gradient


def train_ours(model_dir, adapter, rows_path, run, keys, lr):
    recipe = {
        "model": {"path": model_dir, "dtype": "float32"}, "quantization": {"method": "none"},
        "lora": {"from_adapter": adapter},
        "data": {"train": [{"path": rows_path, "format": "pretokenized"}], "shuffle": False, "packing": False,
                 "sequence_length": 128},
        "optim": {"name": "adamw", "lr": lr, "schedule": "linear", "warmup_steps": 3, "max_grad_norm": 0.5},
        "train": {"max_steps": STEPS, "micro_batch_size": 2, "gradient_accumulation_steps": 3, "compute_dtype": "float32",
                  "gradient_checkpointing": False, "device": "cpu"},
        "output": {"dir": run}}
    for key, value in keys.items():
        if "." in key:
            section, name = key.split(".")
            recipe[section][name] = json.loads(value) if value in ("true", "false") else value
    if recipe["data"]["packing"]:  # all rows in one step, so that it does not matter which are packed together
        recipe["train"]["gradient_accumulation_steps"] = 64
    with open(run + ".yaml", "w") as file:
        json.dump(recipe, file)
    done = subprocess.run([QLORA, "train", run + ".yaml"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    steps = [row for row in map(json.loads, open(os.path.join(run, "metrics.jsonl"))) if "grad_norm" in row]
    return ([row["loss"] for row in steps], [row["grad_norm"] for row in steps],
            load_file(os.path.join(run, "adapter", "adapter_model.safetensors")))


def file_name(name):
    """A parameter's name in memory as PEFT saves it."""
    return name.replace(".modules_to_save", "").replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")


def check_loads(model_dir, run, keys, rows):
    """Our adapter is, in PEFT, the very tensors of the file; the merged export is the same model. Largest difference of a logit."""
    model = PeftModel.from_pretrained(load(model_dir, keys), os.path.join(run, "adapter"))
    stored = load_file(os.path.join(run, "adapter", "adapter_model.safetensors"))
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert loaded.keys() == stored.keys(), loaded.keys() ^ stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    merged = run + "-merged"
    subprocess.run([QLORA, "export", run, "--format", "merged", "--dtype", "float32", "--output", merged], check=True,
                   capture_output=True)
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    model.train()  # else bitsandbytes multiplies in bf16
    with torch.no_grad():
        return max((model(ids).logits - plain(ids).logits).abs().max().item()
                   for ids in (torch.tensor([row["input_ids"]]) for row in rows[:4]))


def gradient_of_ours(model_dir, adapter, rows_path, run, keys, start):
    """One step of plain descent with rate 1 moves the adapter by its gradient."""
    plain = {key: value for key, value in keys.items() if not key.startswith("optim.")}
    plain |= {"optim.name": "sgd", "optim.schedule": "constant", "optim.warmup_steps": 0, "optim.max_grad_norm": 0,
              "optim.weight_decay": 0, "train.max_steps": 1}
    after = train_ours(model_dir, adapter, rows_path, run, plain, 1.0)[2]
    return {name: start[name] - after[name] for name in start}


def cosine(ours, peer):
    """Of all gradients as one vector, and the least of a single tensor's."""
    a, b = (torch.cat([side[name].double().flatten() for name in sorted(peer)]) for side in (ours, peer))
    each = min(torch.cosine_similarity(ours[n].double().flatten(), peer[n].double().flatten(), 0).item() for n in peer)
    return torch.cosine_similarity(a, b, 0).item(), each


def largest(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def compare(name, keys, model_dir, folder, eos, vocabulary, lr=2e-3):
    here = os.path.join(folder, name.replace(" ", "_").replace(",", ""))
    os.makedirs(here)
    packed = keys.get("data.packing") == "true"
    rows_path, adapter = os.path.join(here, "rows.jsonl"), os.path.join(here, "adapter")
    rows = make_rows(rows_path, eos, vocabulary, ROWS_A_STEP if packed else ROWS_A_STEP * 10)
    make_adapter(model_dir, adapter, keys)
    ours = train_ours(model_dir, adapter, rows_path, os.path.join(here, "run"), keys, lr)
    peer = train_peer(model_dir, adapter, rows, keys, lr)
    start = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    start.pop(f"{PREFIX}lm_head.base_layer.weight", None)  # PEFT writes the frozen weight beside an adapter of the head
    gradient = gradient_of_ours(model_dir, adapter, rows_path, os.path.join(here, "descent"), keys, start)
    whole, least = cosine(gradient, peer[3])
    final = {file_name(key): value for key, value in peer[2].items()}
    if keys.get("peft", {}).get("ensure_weight_tying"):  # one matrix, saved under two names
        assert torch.equal(ours[2].pop(f"{PREFIX}lm_head.weight"), ours[2][f"{PREFIX}model.embed_tokens.weight"])
    assert final.keys() == ours[2].keys(), final.keys() ^ ours[2].keys()
    change = max((final[key] - start[key]).abs().max().item() for key in final)
    difference = max((final[key] - ours[2][key]).abs().max().item() for key in final)
    loss = largest(ours[0], peer[0])
    norm = max(abs(x / y - 1) for x, y in zip(ours[1], peer[1], strict=True))
    merged = check_loads(model_dir, os.path.join(here, "run"), keys, rows)
    print(f"{name:45} loss {peer[0][0]:.4f} -> {peer[0][-1]:.4f}, difference {loss:.1e}; gradient norm {norm:.1e} of it; "
          f"adapter changed by up to {change:.1e}, difference {difference:.1e}; gradient's cosine {whole:.7f}, "
          f"least of a tensor {least:.6f}; merged, logits within {merged:.1e}", flush=True)
    return difference <= 0.01 * change and loss <= 1e-4 and least >= 0.9999 and merged <= 1e-3


def model_of(keys, folder):
    kind = "biased" if "bias" in keys or "biased" in keys else "untied" if "untied" in keys else "tiny"
    return os.path.join(folder, kind)


def main(folder, real_model=None):
    logging.disable_progress_bar()
    made = {"tiny": {}, "biased": {"attention_bias": True, "mlp_bias": True}, "untied": {"tie_word_embeddings": False}}
    for name, more in made.items():
        make_model(os.path.join(folder, name), **more)
    chosen = {name: keys for name, keys in CASES.items() if os.environ.get("ONLY", "") in name}  # ONLY: while working on one
    good = [compare(name, keys, model_of(keys, folder), folder, EOS, VOCABULARY) for name, keys in chosen.items()]
    if real_model:
        good.append(compare("the given model", {}, real_model, folder, 2, 49152, 2e-4))
    return not all(good)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
