# make interop: $BUILD/bin/make_orders $WORK --train 8 && $PYTHON tests/interop/evaluated_rows.py $QLORA "$INTEROP_MODEL" $WORK/train.jsonl
"""The loss of chat rows, row by row, by `qlora evaluate` and by transformers and PEFT, in fp32.

    evaluated_rows.py QLORA MODEL_DIRECTORY ROWS.jsonl [ADAPTER_DIRECTORY]

MODEL_DIRECTORY is unquantized; an adapter must hold no qlora_base.json, or its base is quantized as it says.
Ran with transformers 5.23.0, peft 0.21.2, torch 2.11.0: largest difference 7.3e-5 (SmolLM2-135M-Instruct, 8 rows).
"""
import json
import subprocess
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

qlora, model_dir, rows_path = sys.argv[1:4]
if not model_dir:
    sys.exit("no model: run `make quickstart` first, or give INTEROP_MODEL=DIRECTORY")
adapter = sys.argv[4] if len(sys.argv) > 4 else None
rows = [json.loads(line)["messages"] for line in open(rows_path)]
tokenizer = AutoTokenizer.from_pretrained(model_dir)
model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
if adapter:
    model = PeftModel.from_pretrained(model, adapter)
model.eval()


def row_nll(messages):
    """Nats of the last turn, its end-of-turn token included, what follows that token not."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    begin = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    ids = tokenizer(text.rstrip("\n"), add_special_tokens=False).input_ids
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return -sum(log_p[i - 1, ids[i]].item() for i in range(begin, len(ids)))


command = [qlora, "evaluate", "--model", model_dir, "--data", rows_path, "--json", "--compute-dtype", "float32"]
command += ["--adapter", adapter] if adapter else []
found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[-1]["rows"]
worst = max(abs(row_nll(messages) - row["nll"]) for messages, row in zip(rows, found))
print(f"{len(rows)} rows: largest difference of a row's negative log-likelihood {worst:.2e}")
sys.exit(worst > 1e-3)
