# make interop: QLORA=$QLORA $PYTHON tests/interop/exports.py $WORK
"""What `qlora train` and `qlora export` write, read by the tools it is for.

    QLORA=build/bin/qlora python tests/interop/exports.py FOLDER

A made model is trained on an NF4 base for ten steps. Then:
- the adapter export in PEFT on a bitsandbytes NF4 base, and the fp32 merged export in transformers: the same logits to 1e-4;
- the bf16 merged export: every weight is bf16(base as bitsandbytes dequantizes it + scaling * B A), differing values counted
  (the product is summed in another order here, so a value on the edge may round to its neighbour: at most one in 10,000);
- its tokenizer: the same ids and the same chat template text as the source's;
- the events file in the tensorboard package: the values of metrics.jsonl as fp32, the texts of samples.jsonl.

Ran with transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, tensorboard 2.21.0, torch 2.11.0.
"""
import json
import os
import struct
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from bitsandbytes.functional import dequantize_4bit
from peft import PeftModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, logging

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")
TEXTS = ["", "plain words", "Ünïcödé — 例 🦙\n\ttabs", "</s> as text", " two  spaces "]
PROMPTS = ["Ünïcödé", "two\nlines|#*"]


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def in_markdown(text):
    """As a run writes it for TensorBoard: as it stands."""
    return "    " + text.replace("\n", "\n    ")


def train(folder):
    tiny, run = os.path.join(folder, "tiny"), os.path.join(folder, "run")
    make_model(tiny)
    make_rows(os.path.join(folder, "rows.jsonl"), EOS, VOCABULARY, 40)
    recipe = {"model": {"path": tiny, "dtype": "float32"}, "quantization": {"method": "nf4"},
              "lora": {"rank": 4, "alpha": 8}, "optim": {"lr": 1e-2},
              "data": {"train": [{"path": os.path.join(folder, "rows.jsonl"), "format": "pretokenized"}]},
              "train": {"max_steps": 10, "compute_dtype": "float32", "device": "cpu", "sample_prompts": PROMPTS, "sample_every": 5},
              "output": {"dir": run}}
    with open(os.path.join(folder, "recipe.yaml"), "w") as file:
        json.dump(recipe, file)
    qlora("train", os.path.join(folder, "recipe.yaml"))
    qlora("export", run, "--format", "adapter", "--output", os.path.join(folder, "adapter"))
    for dtype in ("float32", "bfloat16"):
        qlora("export", run, "--format", "merged", "--dtype", dtype, "--output", os.path.join(folder, "merged-" + dtype))
    return tiny, run


def quantized(tiny):
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                      bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32, quantization_config=quantization, device_map="cpu")


def merged_by_definition(model, adapter, config):
    """bf16 of each weight of the quantized `model`, with the adapter added in fp32."""
    weights = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if hasattr(parameter, "quant_state"):
            value = dequantize_4bit(value, parameter.quant_state)
        key = "base_model.model." + name.removesuffix(".weight")
        if key + ".lora_A.weight" in adapter:
            delta = adapter[key + ".lora_B.weight"] @ adapter[key + ".lora_A.weight"]
            value = value + config["lora_alpha"] / config["r"] * delta
        weights[name] = value.to(torch.bfloat16)
    return weights


logging.disable_progress_bar()
folder = sys.argv[1]
tiny, run = train(folder)
bad = []

merged = load_file(os.path.join(folder, "merged-bfloat16", "model.safetensors"))
adapter = load_file(os.path.join(folder, "adapter", "adapter_model.safetensors"))
config = json.load(open(os.path.join(folder, "adapter", "adapter_config.json")))
expected = merged_by_definition(quantized(tiny), adapter, config)
assert merged.keys() == expected.keys(), merged.keys() ^ expected.keys()
values = sum(value.numel() for value in merged.values())
others = sum((merged[name].view(torch.int16) != expected[name].view(torch.int16)).sum().item() for name in merged)
print(f"merged bf16: {values} values, {others} are not the rounded fp32 sum")
bad += ["merged"] * (others > values // 10_000)

ids = torch.randint(0, EOS, (1, 120), generator=torch.Generator().manual_seed(2))
# In training mode (nothing drops out): outside of it bitsandbytes 0.50.2 multiplies in bf16 on the CPU, whatever the compute dtype.
in_peft = PeftModel.from_pretrained(quantized(tiny), os.path.join(folder, "adapter"), is_trainable=True).train()(ids).logits.detach()
plain = quantized(tiny).train()(ids).logits.detach()
in_transformers = AutoModelForCausalLM.from_pretrained(os.path.join(folder, "merged-float32")).eval()(ids).logits.detach()
difference = (in_peft - in_transformers).abs().max().item()
print(f"logits: PEFT with the adapter against the fp32 merged model {difference:.1e}; "
      f"the adapter changes them by up to {(in_peft - plain).abs().max():.2f}")
bad += ["logits"] * (difference > 1e-4)

source, exported = AutoTokenizer.from_pretrained(tiny), AutoTokenizer.from_pretrained(os.path.join(folder, "merged-bfloat16"))
same = all(source(text).input_ids == exported(text).input_ids for text in TEXTS) and source.chat_template == exported.chat_template
print(f"tokenizer of the merged model: {'the same ids and template' if same else 'OTHER ids or template'}")
bad += ["tokenizer"] * (not same)

events = EventAccumulator(run)
events.Reload()
wrong = read = 0
for row in map(json.loads, open(os.path.join(run, "metrics.jsonl"))):
    for tag in events.Tags()["scalars"]:
        key = tag.split("/")[-1]
        for event in events.Scalars(tag):
            if event.step == row["step"] and key in row:
                read += 1
                wrong += struct.pack("f", event.value) != struct.pack("f", row[key])
print(f"tensorboard: tags {', '.join(events.Tags()['scalars'])}; {read} values read, {wrong} other than in metrics.jsonl")
bad += ["tensorboard"] * (wrong > 0 or read < 10 * 3)
written, expected = set(), set()
for tag in events.Tags()["tensors"]:
    assert events.SummaryMetadata(tag).plugin_data.plugin_name == "text", tag
    written |= {(event.step, tag, event.tensor_proto.string_val[0].decode()) for event in events.Tensors(tag)}
for row in map(json.loads, open(os.path.join(run, "samples.jsonl"))):
    expected |= {(row["step"], f"samples/{i}", in_markdown(sample["prompt"]) + "\n\n**answer**\n\n" + in_markdown(sample["answer"]))
                 for i, sample in enumerate(row["samples"], 1)}
print(f"tensorboard: {len(written)} texts read, {len(written ^ expected)} other than in samples.jsonl")
bad += ["texts"] * (written != expected or len(written) != 3 * len(PROMPTS))
sys.exit(", ".join(bad) if bad else 0)
