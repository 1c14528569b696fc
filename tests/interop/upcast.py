# make interop: QLORA=$QLORA $PYTHON tests/interop/upcast.py $WORK $INTEROP_MODEL
"""model.upcast all against PEFT's prepare_model_for_kbit_training, on an NF4 base with double quantization.

    QLORA=build/bin/qlora python tests/interop/upcast.py FOLDER [MODEL_DIRECTORY]

One step of plain descent with rate 1 from the same adapter on the same rows gives our loss and gradients; the peer's are autograd's.
In float32 products both are to be equal within rounding, once the peer's forward pass takes the weights its backward pass takes:
bitsandbytes rounds dequantized weights to the dtype they were quantized from in the backward pass, as we do in both, but since its
fused product no longer in the forward pass. Without that correction the difference is printed, not judged. In bfloat16 ones (the peer's by autocast) the peer keeps more than the
embedding and head in float32, so that ours with upcast is to be as near to the float32 gradient as the peer's, which is printed
beside ours without upcast. The base is bfloat16 before quantization, so that the cast to float32 does something.
Ran with transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, torch 2.11.0; what it printed is in docs/interop.md.
"""
import json
import os
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import bitsandbytes
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, logging

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")
ROWS = 6


def make_adapter(model_dir, path):
    torch.manual_seed(11)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(path)


def rounded_product(A, B, quant_state, out=None, bias=None):
    return torch.nn.functional.linear(A, bitsandbytes.functional.dequantize_4bit(B, quant_state).to(A.dtype), bias)


def peer(model_dir, adapter, rows, compute):
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                      bnb_4bit_compute_dtype=compute)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, quantization_config=quantization, device_map="cpu")
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    assert base.get_input_embeddings().weight.dtype == torch.float32
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True).train()
    supervised = sum(label != -100 for row in rows for label in row["labels"][1:])
    total = 0.0
    for row in rows:
        with torch.autocast("cpu", torch.bfloat16, enabled=compute == torch.bfloat16):
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(row["labels"][1:]), reduction="sum") / supervised
        loss.backward()
        total += loss.item()
    return total, {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.requires_grad}


def ours(model_dir, adapter, rows_path, run, compute, upcast):
    recipe = {
        "model": {"path": model_dir, "upcast": upcast}, "quantization": {"method": "nf4"}, "lora": {"from_adapter": adapter},
        "data": {"train": [{"path": rows_path, "format": "pretokenized"}], "shuffle": False, "packing": False,
                 "sequence_length": 128},
        "optim": {"name": "sgd", "lr": 1.0, "schedule": "constant", "max_grad_norm": 0},
        "train": {"max_steps": 1, "micro_batch_size": 2, "gradient_accumulation_steps": ROWS // 2, "compute_dtype": compute,
                  "device": "cpu"},
        "output": {"dir": run}}
    with open(run + ".yaml", "w") as file:
        json.dump(recipe, file)
    done = subprocess.run([QLORA, "train", run + ".yaml"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    loss = json.loads(open(os.path.join(run, "metrics.jsonl")).readline())["loss"]
    before, after = (load_file(os.path.join(path, "adapter_model.safetensors")) for path in (adapter, run + "/adapter"))
    return loss, {name: before[name] - after[name] for name in before}


def flat(gradients):
    return torch.cat([gradients[name].double().flatten() for name in sorted(gradients)])


def compare(name, model_dir, folder, eos, vocabulary):
    here = os.path.join(folder, name)
    os.makedirs(here)
    rows_path, adapter = os.path.join(here, "rows.jsonl"), os.path.join(here, "adapter")
    rows = make_rows(rows_path, eos, vocabulary, ROWS)
    make_adapter(model_dir, adapter)
    as_it_is = peer(model_dir, adapter, rows, torch.float32)[0]
    fused = bitsandbytes.matmul_4bit
    bitsandbytes.matmul_4bit = rounded_product
    loss, gradient = peer(model_dir, adapter, rows, torch.float32)
    bitsandbytes.matmul_4bit = fused
    loss_16, gradient_16 = peer(model_dir, adapter, rows, torch.bfloat16)
    our_loss, our_gradient = ours(model_dir, adapter, rows_path, here + "/32", "float32", "all")
    results = {upcast: ours(model_dir, adapter, rows_path, here + "/16-" + upcast, "bfloat16", upcast) for upcast in ("all", "none")}
    exact = flat(gradient)
    difference = (flat(our_gradient) - exact).abs().max().item()
    print(f"{name}, float32: loss {loss:.6f}, difference {abs(our_loss - loss):.1e}; gradients up to {exact.abs().max().item():.1e}, "
          f"difference {difference:.1e}; with bitsandbytes' own forward pass the loss differs by {abs(our_loss - as_it_is):.1e}")
    errors = {}
    for label, (loss_of, gradient_of) in {"PEFT": (loss_16, gradient_16), "upcast all": results["all"],
                                          "upcast none": results["none"]}.items():
        errors[label] = ((flat(gradient_of) - exact).norm() / exact.norm()).item()
        print(f"{name}, bfloat16, {label}: loss off by {abs(loss_of - loss):.1e}, gradient by {errors[label]:.2e} of its norm", flush=True)
    # fp32 products in another order; what the roundings to bf16 add up to is a matter of luck, so a quarter more is granted.
    return (abs(our_loss - loss) <= 1e-5 * loss and difference <= 1e-4 * exact.abs().max().item()
            and errors["upcast all"] <= 1.25 * errors["PEFT"])


logging.disable_progress_bar()
folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
made = os.path.join(folder, "tiny")
make_model(made)
good = [compare("made model", made, folder, EOS, VOCABULARY)]
if len(sys.argv) > 2:
    good.append(compare("given model", sys.argv[2], folder, 2, 49152))
sys.exit(not all(good))
