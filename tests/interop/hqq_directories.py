# make interop: if [ -n "${INTEROP_PREQUANTIZED:-}" ]; then D=$INTEROP_PREQUANTIZED; QLORA=$QLORA $PYTHON tests/interop/hqq_directories.py "$D/base-llama64" "$D"/hqq-[1248]b-g*-axis? "$D"/hqq-3b-g64-axis0 "$D"/hqq-4b-channel "$D"/hqq-4b-view-as-float; else echo "INTEROP_PREQUANTIZED names no folder of directories"; fi
"""Whether `qlora quantize --method hqq` gives the codes, scales and zeros of hqq.

    QLORA=build/bin/qlora python tests/interop/hqq_directories.py BASE DIRECTORY...

Each DIRECTORY was made of BASE by transformers 4.57 with hqq 0.2.8 on a CPU. Every tensor must be the same; of codes, where a weight lies
between two of them, one in a thousand bytes may differ.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

QLORA = os.environ.get("QLORA", "build/bin/qlora")


def tensors_of(directory):
    return load_file(os.path.join(directory, "model.safetensors"))


def quantize(base, out, params, dtype):
    done = subprocess.run([QLORA, "quantize", "--model", base, "--method", "hqq", "--output", out, "--bits", str(params["nbits"]), "--group-size",
                           str(params["group_size"] or 0), "--axis", str(params["axis"]), "--dtype", dtype], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def compare(base, directory, work):
    config = json.load(open(os.path.join(directory, "config.json")))["quantization_config"]
    params = config["quant_config"]["weight_quant_params"]
    theirs = tensors_of(directory)
    dtype = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}[
        next(t.dtype for n, t in theirs.items() if n.endswith(".scale"))]
    out = os.path.join(work, os.path.basename(directory))
    quantize(base, out, params, dtype)
    ours = tensors_of(out)
    problems = [f"{n} is missing or superfluous" for n in theirs.keys() ^ ours.keys()]
    for name in theirs.keys() & ours.keys():
        a, b = ours[name], theirs[name]
        if name.endswith(".view_as_float"):
            continue
        if name.endswith(".W_q") and b.is_floating_point():
            b = b.view(a.dtype)
        if a.shape != b.shape or a.dtype != b.dtype:
            problems.append(f"{name}: {a.dtype} {list(a.shape)}, not {b.dtype} {list(b.shape)}")
        elif (a != b).sum().item() > (a.numel() // 1000 if name.endswith(".W_q") else 0):
            problems.append(f"{name}: {(a != b).sum().item()} of {a.numel()} differ")
    print(f"{'WRONG' if problems else 'ok   '} {os.path.basename(directory)}: {len(theirs)} tensors", *problems[:5], sep="\n      " if problems else " ")
    return bool(problems)


def main(base, *directories):
    work = tempfile.mkdtemp()
    try:
        wrong = [d for d in directories if compare(base, d.rstrip("/"), work)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
