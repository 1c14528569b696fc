# make interop: QLORA=$QLORA $PYTHON tests/interop/combine_adapters.py $WORK
"""Adapters combined with weights, and merged into the original weights, against PEFT.

    QLORA=build/bin/qlora python tests/interop/combine_adapters.py FOLDER

On a made model, adapters of PEFT with random A and B:
- `qlora export --combine METHOD --format adapter` against add_weighted_adapter's factors: linear, cat, ties with both elections
  and magnitude_prune, with a negative weight, another alpha, rsLoRA and, for cat, another rank: to 1e-6. (The DARE methods draw;
  torch's draw cannot be repeated.) PEFT leaves the first adapter's use_rslora in place; the first one here has none.
- the result in PEFT: the same logits as PEFT's own combined adapter, to 1e-4;
- `--merge-base original` of an adapter on an NF4 base, in fp32, against merge_and_unload on the 16-bit model in fp32: plain, DoRA,
  rsLoRA with rank and alpha patterns. A weight of 1 is a sum of some five fp32 numbers: to 2e-6.

Ran with transformers 5.23.0, peft 0.21.2, torch 2.11.0; what it printed is in docs/interop.md.
"""
import copy
import json
import os
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, logging

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")
COMBINATIONS = {  # name: adapters, weights, options of both
    "linear": (["one", "two"], [0.7, -0.3], {}),
    "cat": (["one", "two", "wide"], [0.7, -0.3, 1.5], {}),
    "ties": (["one", "two", "three"], [0.7, 0.3, -0.5], {"density": 0.4}),
    "ties, frequency": (["one", "two", "three"], [0.7, 0.3, 0.5], {"density": 0.4, "majority_sign_method": "frequency"}),
    "magnitude_prune": (["one", "two"], [0.7, -0.3], {"density": 0.3}),
}
ADAPTERS = {
    "one": {"r": 8, "lora_alpha": 16},
    "two": {"r": 8, "lora_alpha": 4},
    "three": {"r": 8, "lora_alpha": 8, "use_rslora": True},
    "wide": {"r": 12, "lora_alpha": 6},
}
MERGED = {
    "plain": {},
    "dora": {"use_dora": True},
    "patterns": {"use_rslora": True, "rank_pattern": {"down_proj": 4, r"layers.1.mlp.up_proj": 16}, "alpha_pattern": {"q_proj": 3}},
}
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def make_adapter(base, path, seed, **config):
    torch.manual_seed(seed)
    model = get_peft_model(copy.deepcopy(base), LoraConfig(target_modules=NAMES, **{"r": 8, "lora_alpha": 16, **config}))
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif "lora_magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)


def largest_difference(ours, theirs):
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    return max((ours[name].float() - theirs[name].float()).abs().max().item() for name in ours)


def logits(model):
    ids = torch.randint(0, EOS, (1, 60), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model.eval()(ids).logits


def combine(folder, tiny, base, name, adapters, weights, options):
    method = name.split(",")[0]
    model = PeftModel.from_pretrained(copy.deepcopy(base), os.path.join(folder, adapters[0]), adapter_name=adapters[0])
    for adapter in adapters[1:]:
        model.load_adapter(os.path.join(folder, adapter), adapter_name=adapter)
    model.add_weighted_adapter(adapters, weights, "sum", combination_type=method, **options)
    model.set_adapter("sum")
    model.save_pretrained(os.path.join(folder, "peft"), selected_adapters=["sum"])
    target = os.path.join(folder, "ours-" + name.replace(", ", "-"))
    arguments = ["--combine", method, "--weights=" + ",".join(map(str, weights)), "--format", "adapter", "--output", target]
    for adapter in adapters:
        arguments += ["--adapter", os.path.join(folder, adapter)]
    if "density" in options:
        arguments += ["--density", str(options["density"])]
    if "majority_sign_method" in options:
        arguments += ["--majority-sign", options["majority_sign_method"]]
    qlora("export", "--model", tiny, "--compute-dtype", "float32", "--device", "cpu", *arguments)
    factors = largest_difference(load_file(os.path.join(target, "adapter_model.safetensors")),
                                 load_file(os.path.join(folder, "peft", "sum", "adapter_model.safetensors")))
    ours = logits(PeftModel.from_pretrained(copy.deepcopy(base), target))
    theirs = logits(model)
    difference, moved = (ours - theirs).abs().max().item(), (theirs - logits(base)).abs().max().item()
    print(f"{name}: factors differ by at most {factors:.1e}, logits in PEFT by {difference:.1e} (the adapter moves them by {moved:.2f})")
    return factors > 1e-6 or difference > 1e-4


def merge(folder, tiny, base, name, config):
    """A run on NF4 that starts from PEFT's adapter and takes no step worth the name, merged into the 16-bit model."""
    start, run = os.path.join(folder, "start-" + name), os.path.join(folder, "run-" + name)
    make_adapter(base, start, 11, **config)
    recipe = {"model": {"path": tiny, "dtype": "float32"}, "quantization": {"method": "nf4"},
              "lora": {"from_adapter": start, "rank": 8, "alpha": 16, "targets": NAMES,
                       **{key: value for key, value in config.items() if key not in ("r", "lora_alpha")}},
              "optim": {"lr": 1e-2}, "train": {"max_steps": 2, "compute_dtype": "float32", "device": "cpu"}, "output": {"dir": run},
              "data": {"train": [{"path": os.path.join(folder, "rows.jsonl"), "format": "pretokenized"}]}}
    with open(os.path.join(folder, "recipe.yaml"), "w") as file:
        json.dump(recipe, file)
    qlora("train", os.path.join(folder, "recipe.yaml"))
    target = os.path.join(folder, "merged-" + name)
    qlora("export", run, "--format", "merged", "--merge-base", "original", "--dtype", "float32", "--output", target)
    report = json.load(open(os.path.join(target, "verification.json")))
    model = PeftModel.from_pretrained(copy.deepcopy(base), os.path.join(run, "adapter")).merge_and_unload()
    ours = load_file(os.path.join(target, "model.safetensors"))
    theirs = {key: value for key, value in model.state_dict().items() if key in ours}
    difference = largest_difference(ours, theirs)
    print(f"merged into the original, {name}: {sum(v.numel() for v in ours.values())} weights differ by at most {difference:.1e}; "
          f"KL to the model trained on NF4 {report['kl_mean']:.3f}")
    return difference > 2e-6


logging.disable_progress_bar()
folder = sys.argv[1]
tiny = os.path.join(folder, "tiny")
make_model(tiny)
make_rows(os.path.join(folder, "rows.jsonl"), EOS, VOCABULARY, 20)
base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
for seed, (name, config) in enumerate(ADAPTERS.items()):
    make_adapter(base, os.path.join(folder, name), seed, **config)
bad = [name for name, combination in COMBINATIONS.items() if combine(folder, tiny, base, name, *combination)]
bad += [name for name, config in MERGED.items() if merge(folder, tiny, base, name, config)]
sys.exit(", ".join(bad) if bad else 0)
