# make interop: QLORA=$QLORA $PYTHON tests/interop/loftq.py $WORK
"""A LoftQ run's base and adapter in transformers and PEFT: the logits of the merged model that qlora itself exports.

    QLORA=build/bin/qlora python tests/interop/loftq.py FOLDER

For loftq, pissa and olora on NF4 with double quantization and on int8: RUN/base is loaded by transformers (packed as it lies), the
adapter by PEFT on top, and compared in fp32 with `qlora export --format merged --dtype float32` loaded by transformers.
Ran with transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, torch 2.11.0.
"""
import json
import os
import shutil
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, logging

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def main():
    logging.set_verbosity_error()
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    make_model(os.path.join(folder, "model"))
    make_rows(os.path.join(folder, "rows.jsonl"), EOS, VOCABULARY, 40)
    ids = torch.arange(40).remainder(VOCABULARY)[None]
    worst = 0.0
    for init in ("loftq", "pissa", "olora"):
        for method in ("nf4", "int8_weight_only"):
            run, merged = os.path.join(folder, "run"), os.path.join(folder, "merged")
            for path in (run, merged):
                shutil.rmtree(path, ignore_errors=True)
            recipe = {"model": {"path": os.path.join(folder, "model"), "dtype": "float32"},
                      "quantization": {"method": method}, "lora": {"rank": 4, "alpha": 12, "init": init},
                      "optim": {"lr": 1e-3},
                      "data": {"train": [{"path": os.path.join(folder, "rows.jsonl"), "format": "pretokenized"}]},
                      "train": {"max_steps": 4, "compute_dtype": "float32", "device": "cpu"}, "output": {"dir": run}}
            with open(os.path.join(folder, "recipe.yaml"), "w") as file:
                json.dump(recipe, file)
            qlora("train", os.path.join(folder, "recipe.yaml"))
            qlora("export", run, "--format", "merged", "--dtype", "float32", "--output", merged)
            base = AutoModelForCausalLM.from_pretrained(os.path.join(run, "base"), dtype=torch.float32, device_map="cpu")
            ours = PeftModel.from_pretrained(base, os.path.join(run, "adapter")).train()  # training mode: fp32 products
            for module in ours.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.eval()
            plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
            with torch.no_grad():
                a, b = ours(input_ids=ids).logits, plain(input_ids=ids).logits
            difference = float((a - b).abs().max())
            worst = max(worst, difference)
            print(f"{init} {method}: largest logit difference {difference:.2e} of {float(b.abs().max()):.1f}")
    sys.exit(worst > 1e-3)


main()
