"""The conditions under which the figures of compare.py count: `bench/peers/run.sh gates`. Prints each with its number; fails if one is
not met.

loss        20 steps on an NF4 base in bf16, the same adapter and rows in the same order: each loss within 1 % of PEFT's.
gradient    of the adapter, B not zero, bf16, each row by itself, on average over the rows: the cosine of all of it with PEFT's fp32
            gradient is 0.999 or more, and no tensor's is below that of PEFT's own bf16 gradient. Those that are get listed. (In a
            single row the same roundings, elsewhere by a bit, put a tensor on one side or the other by chance.)
base        the frozen weights are the same bytes after training.

With `--peer-dtype float32`, for processors without bf16 products: losses beside PEFT's float32, and of `auto` the mean cosine with PEFT's fp32
gradient is 0.9999 or more. Variables of the environment hold both sides to an instruction set (compare.py, HELD).

Rows are 512 tokens of the quickstart's orders, all supervised. The adapter is ours, trained for a few steps and read by both sides;
the gradient is also taken with a B of random numbers, larger than training makes it so soon.
"""
import argparse
import array
import json
import os
import shutil
import subprocess
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, logging

from peft_train import load_base

LENGTH, RATE = 512, 5e-4
LOSS_TOLERANCE, LEAST_COSINE, LEAST_FLOAT_COSINE = 0.01, 0.999, 0.9999
SHOWN = 20  # tensors of a list
WEIGHTS = "adapter_model.safetensors"


def arguments():
    parser = argparse.ArgumentParser(prog="bench/peers/run.sh gates", description="whether the figures count")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16, help="whose gradients are taken")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["loss", "gradient", "base"])
    parser.add_argument("--device", default="cpu", help="of both sides: cpu or cuda")
    parser.add_argument("--peer-dtype", choices=["bfloat16", "float32"], default="bfloat16")
    for made in ("build", "model", "gguf", "python", "work"):
        parser.add_argument("--" + made, required=True, help=argparse.SUPPRESS)  # run.sh gives these
    return parser.parse_args()


def call(given, tool, *more):
    env = dict(os.environ, OMP_NUM_THREADS=str(given.threads))
    done = subprocess.run([f"{given.build}/bin/{tool}", *map(str, more)], capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{tool}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def make_rows(given):
    """Orders end to end, cut into rows; as ids for the program and as raw int32 for interop_gradients."""
    call(given, "make_orders", f"{given.work}/orders", "--train", 400, "--test", 0)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False)
             for line in open(f"{given.work}/orders/train.jsonl")]
    ids = sum(tokenizer(texts, add_special_tokens=False)["input_ids"], [])
    rows = [ids[i:i + LENGTH] for i in range(0, len(ids) - LENGTH + 1, LENGTH)]
    assert len(rows) >= max(given.steps + 5, given.rows), f"{len(rows)} rows are too few"
    with open(f"{given.work}/rows.jsonl", "w") as file:
        file.writelines(json.dumps({"input_ids": row, "labels": row}) + "\n" for row in rows)
    with open(f"{given.work}/rows.int32", "wb") as file:
        file.write(array.array("i", sum(rows, [])).tobytes())
    return rows


def train_ours(given, name, steps, lora):
    """`qlora train` on the rows in their order; its losses."""
    recipe = {
        "model": {"path": given.model}, "quantization": {"method": "nf4"}, "lora": lora,
        "data": {"train": [{"path": f"{given.work}/rows.jsonl", "format": "pretokenized"}], "shuffle": False, "packing": False,
                 "sequence_length": LENGTH},
        "optim": {"name": "adamw", "lr": RATE, "schedule": "constant", "max_grad_norm": 0},
        "train": {"max_steps": steps, "gradient_checkpointing": False, "device": given.device, "threads": given.threads},
        "output": {"dir": f"{given.work}/{name}"}}
    path = f"{given.work}/{name}.yaml"
    with open(path, "w") as file:
        json.dump(recipe, file)
    call(given, "qlora", "train", path)
    return [json.loads(line)["loss"] for line in open(f"{given.work}/{name}/metrics.jsonl")]


def with_random_b(given, adapter):
    """The adapter with B drawn anew, normal with deviation 0.02."""
    target = f"{given.work}/random_b"
    shutil.copytree(adapter, target)
    generator = torch.Generator().manual_seed(3)
    save_file({name: torch.randn(value.shape, generator=generator) * 0.02 if "lora_B" in name else value
               for name, value in load_file(f"{adapter}/{WEIGHTS}").items()}, f"{target}/{WEIGHTS}")
    return target


def peer(given, adapter, dtype):
    base = load_base(given.model, "nf4", dtype=dtype, device=given.device)
    return PeftModel.from_pretrained(base, adapter, is_trainable=True).train()


def peer_loss(model, row, dtype):
    ids = torch.tensor([row], device=model.device)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return model(input_ids=ids, labels=ids).loss


def loss_gate(given, rows, adapter):
    ours = train_ours(given, "course", given.steps, {"from_adapter": adapter})
    dtype = getattr(torch, given.peer_dtype)
    model = peer(given, adapter, dtype)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0)
    theirs = []
    for row in rows[:given.steps]:
        loss = peer_loss(model, row, dtype)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(loss.item())
    apart = [abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)]
    print(json.dumps({"gate": "loss", "ours": ours, "peer": theirs}))
    print(f"loss: {theirs[0]:.4f} -> {theirs[-1]:.4f} with PEFT, {ours[0]:.4f} -> {ours[-1]:.4f} with qlora; apart by "
          f"{100 * max(apart):.2f} % at most, {100 * sum(apart) / len(apart):.2f} % on average (at most {100 * LOSS_TOLERANCE:.0f} %)")
    return max(apart) <= LOSS_TOLERANCE


def peer_gradient(model, row, dtype):
    """The loss of a row and the adapter's gradient."""
    model.zero_grad()
    loss = peer_loss(model, row, dtype)
    loss.backward()
    return loss.item(), {name.replace(".default", ""): p.grad.double().cpu() for name, p in model.named_parameters() if p.requires_grad}


def our_gradient(given, row, adapter, dtype):
    path = f"{given.work}/gradient.safetensors"
    with open(f"{given.work}/row.int32", "wb") as file:
        file.write(array.array("i", row).tobytes())
    printed = call(given, "interop_gradients", given.model, "nf4", dtype, adapter, f"{given.work}/row.int32", LENGTH, 1, path,
                   given.device)
    return json.loads(printed)["losses"][0], {name: value.double() for name, value in load_file(path).items()}


def cosines(gradient, reference):
    """Of all tensors as one vector, and of each."""
    names = sorted(reference)
    whole = [torch.cat([side[name].flatten() for name in names]) for side in (gradient, reference)]
    each = {name: torch.cosine_similarity(gradient[name].flatten(), reference[name].flatten(), 0).item() for name in names}
    return torch.cosine_similarity(*whole, 0).item(), each


def gradient_gate(given, rows, name, adapter):
    exact, rounded = peer(given, adapter, torch.float32), peer(given, adapter, torch.bfloat16)
    sides = {"PEFT bf16": lambda row: peer_gradient(rounded, row, torch.bfloat16),
             "qlora bf16": lambda row: our_gradient(given, row, adapter, "bfloat16"),
             "qlora fp32": lambda row: our_gradient(given, row, adapter, "float32")}
    wholes, tensors = {side: [] for side in sides}, {side: [] for side in sides}
    for row in rows[:given.rows]:
        _, reference = peer_gradient(exact, row, torch.float32)
        for side, gradient in sides.items():
            whole, each = cosines(gradient(row)[1], reference)
            wholes[side].append(whole)
            tensors[side].append(each)
    mean = {side: {tensor: sum(each[tensor] for each in found) / len(found) for tensor in found[0]} for side, found in tensors.items()}
    for side, each in mean.items():
        print(f"gradient, {name}: {side}, {len(wholes[side])} rows: cosine {min(wholes[side]):.7f} to {max(wholes[side]):.7f}, mean "
              f"{sum(wholes[side]) / len(wholes[side]):.7f}; mean of a tensor {min(each.values()):.6f} at least")
    ours, theirs = mean["qlora bf16"], mean["PEFT bf16"]
    print(f"gradient, {name}: 1 - cosine of all tensors is {sum(1 - c for c in ours.values()) / sum(1 - c for c in theirs.values()):.2f} "
          "of PEFT's bf16")
    worse = sorted((tensor for tensor in ours if ours[tensor] < theirs[tensor]), key=lambda tensor: ours[tensor] - theirs[tensor])
    in_a_row = [sum(a[tensor] < b[tensor] for tensor in a) for a, b in zip(tensors["qlora bf16"], tensors["PEFT bf16"], strict=True)]
    print(f"gradient, {name}: {len(worse)} of {len(ours)} tensors are worse than PEFT's bf16 on average, {min(in_a_row)} to {max(in_a_row)} "
          "in a single row")
    for tensor in worse[:SHOWN]:
        print(f"  {tensor}: {ours[tensor]:.6f}, PEFT {theirs[tensor]:.6f}")
    if len(worse) > SHOWN:
        print(f"  and {len(worse) - SHOWN} more, by {theirs[worse[SHOWN]] - ours[worse[SHOWN]]:.1e} and less")
    return sum(wholes["qlora bf16"]) / len(wholes["qlora bf16"]) >= LEAST_COSINE and not worse


def float_gradient_gate(given, rows, name, adapter):
    exact, wholes = peer(given, adapter, torch.float32), []
    for row in rows[:given.rows]:
        reference = peer_gradient(exact, row, torch.float32)[1]
        wholes.append(cosines(our_gradient(given, row, adapter, "auto")[1], reference)[0])
    mean = sum(wholes) / len(wholes)
    print(f"gradient, {name}: qlora auto, {len(wholes)} rows: cosine {min(wholes):.7f} to {max(wholes):.7f}, mean {mean:.7f}")
    return mean >= LEAST_FLOAT_COSINE


def base_gate(given, adapter):
    good = True
    for method in ("nf4", "int8", "none"):
        result = json.loads(call(given, "interop_gradients", given.model, method, "bfloat16", adapter, f"{given.work}/rows.int32", LENGTH,
                                 given.steps, f"{given.work}/gradient.safetensors", given.device))
        same = result["base_before"] == result["base_after"]
        good = good and same and result["losses"][-1] != result["losses"][0]
        print(f"base, {method}: {result['base_before']} before, {result['base_after']} after {given.steps} steps")
    return good


def main():
    given = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    rows = make_rows(given)
    train_ours(given, "start", 5, {"rank": 16, "alpha": 16})
    adapter = f"{given.work}/start/adapter"
    met = {}
    if given.only in (None, "loss"):
        met["loss"] = loss_gate(given, rows, adapter)
    if given.only in (None, "gradient"):
        gate = float_gradient_gate if given.peer_dtype == "float32" else gradient_gate
        met["gradient, trained B"] = gate(given, rows, "trained B", adapter)
        met["gradient, random B"] = gate(given, rows, "random B", with_random_b(given, adapter))
    if given.only in (None, "base"):
        met["base"] = base_gate(given, adapter)
    for gate, good in met.items():
        print(f"{gate}: {'met' if good else 'NOT met'}")
    return 0 if all(met.values()) else 1


sys.exit(main())
