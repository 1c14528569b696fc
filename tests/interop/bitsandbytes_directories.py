# make interop: QLORA=$QLORA $PYTHON tests/interop/bitsandbytes_directories.py $WORK
"""Quantized directories both ways between `qlora quantize` / `dequantize` and transformers with bitsandbytes.

    QLORA=build/bin/qlora python tests/interop/bitsandbytes_directories.py FOLDER [MODEL]

For NF4 and FP4 with and without double quantization, and int8:
- transformers loads what `qlora quantize` wrote; its tensors are byte for byte those that transformers makes of the 16-bit model;
- transformers' own save_pretrained directory is dequantized by `qlora dequantize` to the values of bitsandbytes, bit for bit.

Ran with transformers 5.23.0, bitsandbytes 0.50.2, torch 2.11.0 on the made model and on SmolLM2-135M: 0 bytes differ.
"""
import os
import shutil
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from bitsandbytes import functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, logging

from made_model import make_model

QLORA = os.environ.get("QLORA", "build/bin/qlora")
CASES = [("nf4", True), ("nf4", False), ("fp4", True), ("fp4", False), ("int8", False)]


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def config(method, double):
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=method, bnb_4bit_use_double_quant=double,
                              bnb_4bit_compute_dtype=torch.bfloat16)


def stored(folder):
    tensors = {}
    for name in os.listdir(folder):
        if name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(folder, name)))
    return tensors


def dequantized(tensors, name):
    module = name[: -len(".weight")]
    weight = tensors[name]
    if module + ".SCB" in tensors:
        return F.int8_vectorwise_dequant(weight, tensors[module + ".SCB"])
    state = {key[len(name) + 1:]: value for key, value in tensors.items() if key.startswith(name + ".")}
    if not state:
        return weight
    return F.dequantize_4bit(weight, F.QuantState.from_dict(state, device=torch.device("cpu")))


def main():
    logging.set_verbosity_error()
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    source = sys.argv[2] if len(sys.argv) > 2 else os.path.join(folder, "model")
    if len(sys.argv) <= 2:
        make_model(source)
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    total = wrong = 0
    for method, double in CASES:
        ours, theirs, back = (os.path.join(folder, part) for part in ("ours", "theirs", "back"))
        for path in (ours, theirs, back):
            shutil.rmtree(path, ignore_errors=True)
        scales = [] if method == "int8" else ["--double-quant" if double else "--no-double-quant"]
        qlora("quantize", "--model", source, "--method", method, "--output", ours, *scales)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, quantization_config=config(method, double),
                                                     device_map="cpu")
        model.save_pretrained(theirs)
        for name in os.listdir(source):
            if "token" in name or name.endswith((".jinja", ".model")):
                shutil.copy(os.path.join(source, name), theirs)
        loaded = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.bfloat16, device_map="cpu")
        kinds = {type(module).__name__ for module in loaded.modules()}
        if ("Linear8bitLt" if method == "int8" else "Linear4bit") not in kinds:
            sys.exit(f"{method}: transformers did not load quantized layers, found {sorted(kinds)}")
        a, b = stored(ours), stored(theirs)
        if set(a) != set(b):
            sys.exit(f"{method}: only ours {sorted(set(a) - set(b))[:4]}, only theirs {sorted(set(b) - set(a))[:4]}")
        differ = {}
        for name, tensor in a.items():
            x, y = tensor.contiguous().flatten().view(torch.uint8), b[name].contiguous().flatten().view(torch.uint8)
            total += x.numel()
            count = int((x != y).sum()) if x.shape == y.shape else max(x.numel(), y.numel())
            if count:
                differ[name] = count
        wrong += sum(differ.values())
        qlora("dequantize", "--model", theirs, "--output", back, "--dtype", "bfloat16")
        restored = stored(back)
        for name, tensor in restored.items():
            expected = dequantized(b, name).to(torch.bfloat16)
            wrong += int((tensor != expected).sum())
            total += tensor.numel()
        print(f"{method}{' double' if double else ''}: {len(a)} tensors, differing {differ or 0}; dequantized {len(restored)}")
    print(f"{wrong} of {total:,} bytes and values differ")
    sys.exit(bool(wrong))


main()
