# make interop: if [ -n "${INTEROP_PREQUANTIZED:-}" ]; then $PYTHON tests/interop/prequantized_training.py "$INTEROP_PREQUANTIZED" "$QLORA"; else echo "INTEROP_PREQUANTIZED names no folder of directories"; fi
"""Twenty AdamW steps of LoRA on directories that other tools quantized, in float32, against PEFT's on the decoded matrices.

    python tests/interop/prequantized_training.py FOLDER PROGRAM [NAME...]

FOLDER holds the directories, each with a golden.json, and rows.jsonl (six rows of token ids). PEFT trains on what `PROGRAM dequantize` makes
of a directory (prequantized.py compares these matrices with the tools' own), PROGRAM on the directory itself and on the decoded one; all
begin with the same adapter of rank 4, whose A and B are random. A step has two rows, in the file's order, again and again; lr 1e-3 constant,
betas 0.9 and 0.999, eps 1e-8, weight decay 0.01, no clipping.
The final adapter must lie within 0.1 % of the distance that PEFT's moved, each loss within 1e-5 of PEFT's and of that on decoded matrices,
and the losses must fall. Besides:
- the same run with its base on disk (device_map: disk) must end with the same adapter, byte for byte;
- `PROGRAM export --format merged --dtype float32` of the run must succeed, with a KL to the trained model below 1e-6 nats a token.

Ran with peft 0.21.2, transformers 5.23.0, torch 2.11.0.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, logging

logging.set_verbosity_error()
logging.disable_progress_bar()

STEPS, ROWS_A_STEP, LR = 20, 2, 1e-3
LARGEST_LOSS_DIFFERENCE, LARGEST_SHARE_OF_MOVEMENT, LARGEST_KL = 1e-5, 1e-3, 1e-6


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout + done.stderr


def train(program, model, rows, output, adapter, **place):
    """Losses of the steps, and the file of the final adapter. `place`: keys of the section model."""
    shutil.rmtree(output, ignore_errors=True)
    recipe = {"model": {"path": model, "dtype": "float32"} | place, "lora": {"from_adapter": adapter},
              "data": {"train": [{"path": rows, "format": "pretokenized"}], "shuffle": False, "packing": False, "sequence_length": 64},
              "optim": {"name": "adamw", "lr": LR, "schedule": "constant", "warmup_ratio": 0, "weight_decay": 0.01, "max_grad_norm": 0},
              "train": {"max_steps": STEPS, "micro_batch_size": ROWS_A_STEP, "compute_dtype": "float32", "gradient_checkpointing": False,
                        "device": "cpu"},
              "output": {"dir": output}}
    path = output + ".yaml"
    with open(path, "w") as file:
        json.dump(recipe, file)
    run(program, "train", path)
    with open(os.path.join(output, "metrics.jsonl")) as file:
        losses = [entry["loss"] for entry in map(json.loads, file) if "loss" in entry]
    return losses, os.path.join(output, "adapter", "adapter_model.safetensors")


def merge(program, trained, output):
    """KL of the merged model to the trained one, nats a token."""
    shutil.rmtree(output, ignore_errors=True)
    run(program, "export", trained, "--format", "merged", "--dtype", "float32", "--output", output)
    with open(os.path.join(output, "verification.json")) as file:
        return json.load(file)["kl_mean"]


def same_bytes(path, other):
    with open(path, "rb") as file, open(other, "rb") as again:
        return file.read() == again.read()


def labelled(rows, path):
    with open(rows) as file, open(path, "w") as labels:
        for line in file:
            ids = json.loads(line)["input_ids"]
            labels.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    return path


def flat(tensors):
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def train_peft(dense, ids, adapter):
    """Writes the adapter that all begin with. Losses of the steps, and the adapter's tensors before and after them."""
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(11)
    for parameter in trained:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
    model.save_pretrained(adapter)
    start = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(model).items()}
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        x = torch.tensor([ids[(step * ROWS_A_STEP + i) % len(ids)] for i in range(ROWS_A_STEP)])
        logits = model(input_ids=x).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), x[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, start, get_peft_model_state_dict(model)


def apart(losses, others):
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


def compare(program, directory, rows, ids, work):
    """Whether all is well, and a line that says so."""
    def place(name):
        return os.path.join(work, name)

    dense, adapter = place("dense"), place("adapter")
    for folder in dense, adapter:
        shutil.rmtree(folder, ignore_errors=True)
    run(program, "dequantize", "--model", directory, "--dtype", "float32", "--output", dense)
    wanted, start, end = train_peft(dense, ids, adapter)
    losses, trained = train(program, directory, rows, place("run"), adapter)
    decoded, _ = train(program, dense, rows, place("decoded"), adapter)
    _, from_disk = train(program, directory, rows, place("from_disk"), adapter, device_map="disk")
    kl, on_disk_too = merge(program, place("run"), place("merged")), same_bytes(trained, from_disk)
    final = load_file(trained)
    assert len(losses) == STEPS and sorted(final) == sorted(end), f"{len(losses)} steps, {len(final)} and {len(end)} tensors"
    share = ((flat(final) - flat(end)).norm() / (flat(end) - flat(start)).norm()).item()
    first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3  # of a pass
    good = max(apart(losses, wanted), apart(losses, decoded)) < LARGEST_LOSS_DIFFERENCE
    good = good and share < LARGEST_SHARE_OF_MOVEMENT and last < first and kl < LARGEST_KL and on_disk_too
    return good, (f"loss of a pass {first:.4f} to {last:.4f}, from decoded weights' {apart(losses, decoded):.1e}, "
                  f"from PEFT's {apart(losses, wanted):.1e}, of its movement {share:.1e}; "
                  f"{'equal' if on_disk_too else 'ANOTHER'} from disk, merged: KL {kl:.1e}")


def main():
    folder, program, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(os.path.join(folder, "rows.jsonl")) as file:
        ids = [json.loads(line)["input_ids"] for line in file]
    done = failed = 0
    with tempfile.TemporaryDirectory() as work:
        rows = labelled(os.path.join(folder, "rows.jsonl"), os.path.join(work, "rows.jsonl"))
        for name in names or sorted(os.listdir(folder)):
            directory = os.path.join(folder, name)
            if not all(os.path.exists(os.path.join(directory, file)) for file in ("golden.json", "config.json")):
                continue
            good, text = compare(program, directory, rows, ids, work)
            done, failed = done + 1, failed + (not good)
            print(f"{'ok  ' if good else 'FAIL'} {name:26} {text}", flush=True)
    print(f"{done} directories, {failed} fail")
    return failed > 0 or done == 0


if __name__ == "__main__":
    sys.exit(main())
