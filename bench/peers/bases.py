"""Held-out loss of PEFT's models after the training of bench/bases.sh: the same rows, tokens a step, steps, rate and adapter.

    python bench/peers/bases.py MODEL ROWS [SEEDS [STEPS]]

MODEL is a directory of 16-bit weights, ROWS a folder with train.jsonl and eval.jsonl (bench/held_out_orders.sh). Prints a Markdown
table like that script's. Rows come in another order and the adapters begin with other numbers, so single seeds do not match.

A model is loaded anew for the untrained column and evaluated after its training only: bitsandbytes 0.50.2 repacks 4-bit weights on
the CPU under no_grad, and what is trained after that diverges. Its int8 on the CPU dequantizes in training, without outliers and
without activations in int8, and evaluates with LLM.int8() at threshold 6.

Ran with transformers 5.23.0, peft 0.21.2, bitsandbytes 0.50.2, torch 2.11.0.
"""
import json
import os
import random
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, logging

LR, WARMUP, TOKENS_A_STEP = 5e-4, 2, 512


def four_bit(kind, double):
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double,
                              bnb_4bit_compute_dtype=torch.bfloat16)


BASES = {"none": None, "nf4": four_bit("nf4", False), "nf4 + double quantization": four_bit("nf4", True),
         "fp4 + double quantization": four_bit("fp4", True), "int8, dequantized in training": BitsAndBytesConfig(load_in_8bit=True)}


def tokenized(path, tokenizer):
    """(ids, labels) a row: the answer and what closes its turn are trained."""
    rows = []
    for line in open(path):
        messages = json.loads(line)["messages"]
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert whole.startswith(asked)
        prompt = tokenizer(asked, add_special_tokens=False).input_ids
        answer = tokenizer(whole[len(asked):].rstrip("\n"), add_special_tokens=False).input_ids
        rows.append((prompt + answer, [-100] * len(prompt) + answer))
    return rows


def loss_sum(model, rows):
    """Summed over the trained tokens of some rows, and their number."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, attention_mask=mask).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]).float(), labels[:, 1:].reshape(-1),
                                             reduction="sum")
    return loss, int((labels[:, 1:] != -100).sum())


def steps_of(rows, seed):
    """Shuffled rows, as many a step as fit its tokens."""
    order = random.Random(seed)
    step = []
    while True:
        for row in order.sample(rows, len(rows)):
            if sum(len(ids) for ids, _ in step) + len(row[0]) > TOKENS_A_STEP:
                yield step
                step = []
            step.append(row)


def load(path, base):
    more = {} if base is None else {"quantization_config": base}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, device_map="cpu", **more)
    if base is not None:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model.config.use_cache = False
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))


def train(path, base, rows, seed, steps):
    torch.manual_seed(seed)
    model = load(path, base)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    dealt = steps_of(rows, seed)
    for step in range(steps):
        batch = next(dealt)
        optimizer.param_groups[0]["lr"] = LR * (step / WARMUP if step < WARMUP else (steps - step) / (steps - WARMUP))
        loss, supervised = loss_sum(model, batch)
        (loss / supervised).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def evaluate(model, rows):
    model.eval()
    with torch.no_grad():
        parts = [loss_sum(model, rows[i:i + 8]) for i in range(0, len(rows), 8)]
    return sum(float(loss) for loss, _ in parts) / sum(count for _, count in parts)


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path, folder = sys.argv[1:3]
    seeds, steps = int(sys.argv[3]) if len(sys.argv) > 3 else 3, int(sys.argv[4]) if len(sys.argv) > 4 else 24
    tokenizer = AutoTokenizer.from_pretrained(path)
    train_rows, eval_rows = (tokenized(os.path.join(folder, name), tokenizer) for name in ("train.jsonl", "eval.jsonl"))
    print("| base | untrained | trained, by seed | mean | spread |\n|---|---|---|---|---|", flush=True)
    for name, base in BASES.items():
        before = evaluate(load(path, base), eval_rows)
        after = [evaluate(train(path, base, train_rows, seed, steps), eval_rows) for seed in range(1, seeds + 1)]
        print(f"| {name} | {before:.4f} | {', '.join(f'{x:.4f}' for x in after)} | {sum(after) / len(after):.4f} | "
              f"{max(after) - min(after):.4f} |", flush=True)


main()
