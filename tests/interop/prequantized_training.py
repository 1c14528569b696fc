# make interop: if [ -n "${INTEROP_PREQUANTIZED:-}" ]; then $PYTHON tests/interop/prequantized_training.py "$INTEROP_PREQUANTIZED" "$QLORA"; else echo "INTEROP_PREQUANTIZED names no folder of directories"; fi
"""Twelve AdamW steps of LoRA on directories that other tools quantized, in float32, against PEFT's on the decoded matrices.

    python tests/interop/prequantized_training.py FOLDER PROGRAM [NAME...]

FOLDER holds the directories, rows.jsonl (rows of token ids), and in train12/ for each NAME what PEFT made: NAME.json with the losses,
final_NAME.safetensors, and init_adapter, with which all begin. A step has two rows, one after the other in the file's order, four times
through it; lr 1e-3 constant, betas 0.9 and 0.999, eps 1e-8, weight decay 0.01, no clipping.
The final adapter must lie within 0.1 % of the distance that PEFT's moved, each loss within 1e-5. Every other directory of FOLDER with a
golden.json trains too, with its own fresh adapter; there the losses must fall, and equal those of a run on `PROGRAM dequantize`'s matrices
within 1e-5. Also prints the memory of the packed linear layers.

PEFT's runs were made with peft 0.21.2, transformers 5.23.0, torch 2.11.0. Needs numpy and safetensors.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

LARGEST_LOSS_DIFFERENCE, LARGEST_SHARE_OF_MOVEMENT = 1e-5, 1e-3


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout + done.stderr


def train(program, model, rows, folder, adapter=None):
    """Losses of the steps, and the final adapter's tensors."""
    output = os.path.join(folder, "run")
    shutil.rmtree(output, ignore_errors=True)
    lora = {"from_adapter": adapter} if adapter else {"rank": 4, "alpha": 8}
    recipe = {"model": {"path": model, "dtype": "float32"}, "lora": lora,
              "data": {"train": [{"path": rows, "format": "pretokenized"}], "shuffle": False, "packing": False, "sequence_length": 64},
              "optim": {"name": "adamw", "lr": 1e-3, "schedule": "constant", "warmup_ratio": 0, "weight_decay": 0.01, "max_grad_norm": 0},
              "train": {"epochs": 4, "micro_batch_size": 2, "compute_dtype": "float32", "gradient_checkpointing": False, "device": "cpu"},
              "output": {"dir": output}}
    path = os.path.join(folder, "recipe.yaml")
    with open(path, "w") as file:
        json.dump(recipe, file)
    run(program, "train", path)
    with open(os.path.join(output, "metrics.jsonl")) as file:
        losses = [entry["loss"] for entry in map(json.loads, file) if "loss" in entry]
    return losses, load_file(os.path.join(output, "adapter", "adapter_model.safetensors"))


def labelled(rows, path):
    with open(rows) as file, open(path, "w") as labels:
        for line in file:
            ids = json.loads(line)["input_ids"]
            labels.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    return path


def flat(tensors):
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in sorted(tensors)])


def against_peft(program, folder, name, rows, work):
    train12 = os.path.join(folder, "train12")
    losses, final = train(program, os.path.join(folder, name), rows, work, os.path.join(train12, "init_adapter"))
    with open(os.path.join(train12, name + ".json")) as file:
        wanted = json.load(file)["losses"]
    apart = max(abs(a - b) for a, b in zip(losses, wanted, strict=True))
    start = flat(load_file(os.path.join(train12, "init_adapter", "adapter_model.safetensors")))
    peft = flat(load_file(os.path.join(train12, f"final_{name}.safetensors")))
    share = np.linalg.norm(flat(final) - peft) / np.linalg.norm(peft - start)
    return apart, share


def main():
    folder, program, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        rows = labelled(os.path.join(folder, "rows.jsonl"), os.path.join(work, "rows.jsonl"))
        for name in names or sorted(os.listdir(folder)):
            if not os.path.exists(os.path.join(folder, name, "golden.json")) or not os.path.exists(os.path.join(folder, name, "config.json")):
                continue
            dense = os.path.join(work, "dense")
            shutil.rmtree(dense, ignore_errors=True)
            run(program, "dequantize", "--model", os.path.join(folder, name), "--dtype", "float32", "--output", dense)
            losses, _ = train(program, os.path.join(folder, name), rows, work)
            others, _ = train(program, dense, rows, work)
            apart = max(abs(a - b) for a, b in zip(losses, others, strict=True))
            first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3  # of a pass
            good = apart < LARGEST_LOSS_DIFFERENCE and last < first
            text = f"loss of a pass {first:.4f} to {last:.4f}, from decoded weights' {apart:.1e}"
            if os.path.exists(os.path.join(folder, "train12", name + ".json")):
                from_peft, share = against_peft(program, folder, name, rows, work)
                good = good and from_peft < LARGEST_LOSS_DIFFERENCE and share < LARGEST_SHARE_OF_MOVEMENT
                text += f"; from PEFT's losses {from_peft:.1e}, of its movement {share:.1e}"
            failed += not good
            print(f"{'ok  ' if good else 'FAIL'} {name:26} {text}", flush=True)
    print(f"{failed} fail")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
