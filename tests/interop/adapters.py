# make interop: QLORA=$QLORA QLORA_INTEROP_LOGITS=$BUILD/bin/interop_logits $PYTHON tests/interop/adapters.py $WORK
"""Adapter directories of PEFT in qlora and of qlora in PEFT: names, and the logits of the model with them, fp32.

    QLORA=build/bin/qlora QLORA_INTEROP_LOGITS=build/bin/interop_logits python tests/interop/adapters.py FOLDER

Theirs: written by PEFT with random numbers in every trained tensor, loaded by ours; without one tensor, and with one too many, it is
to be refused. Ours: a short training, loaded by PEFT; the names are to be exactly those that PEFT itself would save. Fails if a logit
differs by more than 1e-4.

Ran with transformers 5.23.0, peft 0.21.2, torch 2.11.0; what it printed is in docs/interop.md.
"""
import json
import os
import shutil
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import numpy as np
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, logging

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")
LOGITS = os.environ.get("QLORA_INTEROP_LOGITS", "build/bin/interop_logits")
LENGTHS = (40, 17)
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {  # PEFT's fields; ours have the same names but for target_modules
    "default": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "rank and alpha patterns": {"rank_pattern": {"q_proj": 7, "layers.1.mlp.down_proj": 2}, "alpha_pattern": {"v_proj": 20}},
    "biases of adapted layers": {"bias": "lora_only", "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "all biases": {"bias": "all", "target_modules": ["q_proj", "v_proj"]},
    "two of three layers": {"layers_to_transform": [0, 2]},
    "DoRA, rsLoRA, patterns, biases, one layer":
        {"use_dora": True, "use_rslora": True, "rank_pattern": {"o_proj": 9}, "bias": "lora_only", "layers_to_transform": [1]},
}


def base(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


def weights_of(adapter):
    return os.path.join(adapter, "adapter_model.safetensors")


def their_logits(model, ids):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part[None]).logits[0] for part in ids.split(LENGTHS)])


def our_logits(model_dir, adapter, ids, folder):
    """None if the adapter is refused."""
    tokens, output = os.path.join(folder, "tokens.bin"), os.path.join(folder, "logits.bin")
    ids.to(torch.int32).numpy().tofile(tokens)
    done = subprocess.run([LOGITS, model_dir, adapter, "none", "float32", tokens, output, *map(str, LENGTHS)], capture_output=True)
    if done.returncode:
        return None
    return torch.from_numpy(np.fromfile(output, dtype=np.float32)).view(len(ids), -1)


def make_theirs(model_dir, path, fields):
    torch.manual_seed(11)
    model = get_peft_model(base(model_dir), LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": NAMES,
                                                          "task_type": "CAUSAL_LM"} | fields))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(path)
    return model


def is_strict(model_dir, adapter, ids, folder):
    """Whether ours refuses the adapter without its last tensor, and with one too many."""
    tensors = load_file(weights_of(adapter))
    last = sorted(tensors)[-1]
    changed = {"missing": {name: t for name, t in tensors.items() if name != last},
               "unexpected": tensors | {"base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": torch.zeros(4, 128)}}
    for kind, contents in changed.items():
        path = os.path.join(folder, kind)
        shutil.copytree(adapter, path)
        save_file(contents, weights_of(path), metadata={"format": "pt"})
        if our_logits(model_dir, path, ids, folder) is not None:
            print(f"an adapter with a tensor {kind} was taken")
            return False
    return True


def train_ours(model_dir, rows_path, run, fields):
    lora = {"rank": 4, "alpha": 8, "targets": NAMES} | fields
    if "target_modules" in lora:
        lora["targets"] = lora.pop("target_modules")
    recipe = {"model": {"path": model_dir, "dtype": "float32"}, "quantization": {"method": "none"}, "lora": lora,
              "data": {"train": [{"path": rows_path, "format": "pretokenized"}], "sequence_length": 128},
              "optim": {"lr": 1e-2, "schedule": "constant"},
              "train": {"max_steps": 4, "compute_dtype": "float32", "device": "cpu"}, "output": {"dir": run}}
    with open(run + ".yaml", "w") as file:
        json.dump(recipe, file)
    done = subprocess.run([QLORA, "train", run + ".yaml"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    return os.path.join(run, "adapter")


def load_in_peft(model_dir, adapter):
    """The model, and the names in which the file and PEFT's own state differ."""
    model = get_peft_model(base(model_dir), PeftConfig.from_pretrained(adapter))
    tensors = load_file(weights_of(adapter))
    wrong = get_peft_model_state_dict(model).keys() ^ tensors.keys()
    wrong |= set(set_peft_model_state_dict(model, tensors).unexpected_keys)
    return model, wrong


def compare(name, fields, model_dir, folder):
    here = os.path.join(folder, name.replace(" ", "_").replace(",", ""))
    os.makedirs(here)
    ids = torch.randint(0, VOCABULARY, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))
    theirs = os.path.join(here, "theirs")
    plain = their_logits(base(model_dir), ids)
    expected = their_logits(make_theirs(model_dir, theirs, fields), ids)
    strict = is_strict(model_dir, theirs, ids, here)
    found = our_logits(model_dir, theirs, ids, here)
    if found is None:
        print(f"{name}: PEFT's adapter was refused")
        return False
    to_ours = (found - expected).abs().max().item()

    make_rows(os.path.join(here, "rows.jsonl"), EOS, VOCABULARY, 30)
    ours = train_ours(model_dir, os.path.join(here, "rows.jsonl"), os.path.join(here, "run"), fields)
    model, wrong = load_in_peft(model_dir, ours)
    loaded = their_logits(PeftModel.from_pretrained(base(model_dir), ours), ids)  # as users load it
    to_peft = max((our_logits(model_dir, ours, ids, here) - x).abs().max().item() for x in (loaded, their_logits(model, ids)))
    moved = (expected - plain).abs().max().item()
    print(f"{name:42} PEFT's in ours: logits within {to_ours:.1e} (the adapter moves them by {moved:.1f}); ours in PEFT: within "
          f"{to_peft:.1e} (moved by {(loaded - plain).abs().max().item():.1f}), {len(wrong)} names missing or unexpected", flush=True)
    return strict and not wrong and to_ours <= 1e-4 and to_peft <= 1e-4


logging.disable_progress_bar()
folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
plain, biased = os.path.join(folder, "plain"), os.path.join(folder, "biased")
make_model(plain)
make_model(biased, attention_bias=True, mlp_bias=True)
good = [compare(name, fields, biased if "bias" in fields else plain, folder) for name, fields in CASES.items()]
sys.exit(not all(good))
