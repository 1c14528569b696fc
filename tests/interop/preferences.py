# make interop: QLORA=$QLORA $PYTHON tests/interop/preferences.py $WORK --formulas
"""Whole fp32 trainings on pairs of answers: the same base, adapter and rows, 20 AdamW steps, then the adapters' difference.

    QLORA=build/bin/qlora python tests/interop/preferences.py FOLDER              # against TRL's DPOTrainer and ORPOTrainer
    QLORA=build/bin/qlora python tests/interop/preferences.py FOLDER --formulas   # against the papers' formulas on PEFT's model

FOLDER takes a made model, adapters and runs. The reference of DPO is the adapter that both start with. A step has six pairs, which are one
batch of TRL's and three micro-batches of ours: the loss is the mean over the pairs, the first term of ORPO's the mean over the tokens
of all chosen answers and their prompts (ours with data.train_on: all). The formulas are those of Rafailov et al. 2023 (eq. 7), with
Mitchell's smoothed labels, Zhao et al. 2023 (hinge), Azar et al. 2023 (IPO, of means a token) and Hong et al. 2024 (ORPO).
Fails if a weight of the final adapter differs by more than 0.1 % of the largest change that the training made to any, or a loss or a
mean margin by 1e-3 of the largest (with the formulas 1e-4). Adam's epsilon is 1e-5, so that gradients near zero turn no last bit into a step.

Ran with transformers 5.23.0, peft 0.21.2, torch 2.11.0; the first form with trl 1.16.0 (1.10 or later, and datasets), which has smoothed
labels no more with the sigmoid loss: that case runs with the formulas alone.
"""
import json
import os
import random
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup, logging

from made_model import EOS, make_model
from peft_training import file_name, make_adapter

QLORA = os.environ.get("QLORA", "build/bin/qlora")
STEPS, PAIRS_A_STEP, WARMUP, LR, EPS, NORM = 20, 6, 3, 2e-3, 1e-5, 0.5
CASES = {  # recipe keys of ours; what the peer does follows from them
    "DPO": {},
    "DPO, recomputed layers": {"train.gradient_checkpointing": True},
    "DPO, packed": {"data.packing": True},
    "DPO, smoothed labels": {"train.label_smoothing": 0.2, "train.beta": 0.3},
    "DPO, hinge": {"train.loss_type": "hinge", "train.beta": 0.05},
    "DPO, IPO": {"train.loss_type": "ipo", "train.beta": 0.2},
    "ORPO": {"train.objective": "orpo", "data.train_on": "all"},
    "ORPO, answers alone": {"train.objective": "orpo", "train.beta": 0.5},
}


def make_pairs(path, count):
    """Texts of random letters; the better answer of a prompt is written with other letters than the worse one."""
    generator = random.Random(9)

    def text(letters, least, most):
        return "".join(generator.choice(letters) for _ in range(generator.randrange(least, most)))

    rows = [{"prompt": text("abcdefghij ", 4, 24), "chosen": text("klmnop", 3, 30), "rejected": text("klqrst", 3, 30)}
            for _ in range(count)]
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def train_ours(model_dir, adapter, rows_path, run, keys):
    recipe = {
        "model": {"path": model_dir, "dtype": "float32"}, "quantization": {"method": "none"},
        "lora": {"from_adapter": adapter},
        "data": {"train": [{"path": rows_path, "format": "preference"}], "shuffle": False, "packing": False, "sequence_length": 128},
        "optim": {"name": "adamw", "lr": LR, "eps": EPS, "schedule": "linear", "warmup_steps": WARMUP, "max_grad_norm": NORM},
        "train": {"objective": "dpo", "max_steps": STEPS, "micro_batch_size": 2, "gradient_accumulation_steps": PAIRS_A_STEP // 2,
                  "compute_dtype": "float32", "gradient_checkpointing": False, "device": "cpu"},
        "output": {"dir": run}}
    for key, value in keys.items():
        section, name = key.split(".")
        recipe[section][name] = value
    if recipe["data"]["packing"]:  # all rows in one step, so that it does not matter which are packed together
        recipe["train"]["gradient_accumulation_steps"] = 64
    with open(run + ".yaml", "w") as file:
        json.dump(recipe, file)
    done = subprocess.run([QLORA, "train", run + ".yaml"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    steps = [row for row in map(json.loads, open(os.path.join(run, "metrics.jsonl"))) if "grad_norm" in row]
    return ([row["loss"] for row in steps], [row["rewards_margin"] for row in steps],
            load_file(os.path.join(run, "adapter", "adapter_model.safetensors")))


def base_with(model_dir, adapter):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True)


def trained_parts(model):
    return {file_name(name): p.detach().clone() for name, p in model.named_parameters() if ".default" in name}


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def log_probs(model, tokenizer, row, answer):
    """Of the tokens behind the first: all of them, and those of the answer."""
    prompt = ids_of(tokenizer, row["prompt"])
    ids = ids_of(tokenizer, row["prompt"] + row[answer]) + [EOS]
    assert ids[:len(prompt)] == prompt
    logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    each = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return each, each[len(prompt) - 1:]


def preference_terms(keys, chosen, rejected, reference):
    """Loss of a pair (ORPO: without its first term) and its margin, of the answers' tokens."""
    beta = keys.get("train.beta", 0.1)
    if keys.get("train.objective") == "orpo":
        c, r = chosen.mean(), rejected.mean()
        odds = c - r - (torch.log1p(-torch.exp(c)) - torch.log1p(-torch.exp(r)))
        return -beta * logsigmoid(odds), beta * (c - r)
    more, less = chosen.sum() - reference[0], rejected.sum() - reference[1]
    margin = beta * (more - less)
    loss_type, smoothing = keys.get("train.loss_type", "sigmoid"), keys.get("train.label_smoothing", 0.0)
    if loss_type == "hinge":
        return torch.relu(1 - margin), margin
    if loss_type == "ipo":
        return (more / len(chosen) - less / len(rejected) - 1 / (2 * beta)) ** 2, margin
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin), margin


def train_by_formulas(model_dir, adapter, rows, keys, _):
    model, tokenizer = base_with(model_dir, adapter).train(), AutoTokenizer.from_pretrained(model_dir)
    orpo, with_prompts = keys.get("train.objective") == "orpo", keys.get("data.train_on") == "all"
    with torch.no_grad():
        references = [[log_probs(model, tokenizer, row, answer)[1].sum() for answer in ("chosen", "rejected")] for row in rows]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, eps=EPS, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, margins = [], []
    for step in range(STEPS):
        first = step * PAIRS_A_STEP % len(rows)
        batch = range(first, first + PAIRS_A_STEP)
        step_loss, step_margin, nll, nll_tokens = 0.0, 0.0, 0.0, 0
        for i in batch:
            whole, chosen = log_probs(model, tokenizer, rows[i], "chosen")
            rejected = log_probs(model, tokenizer, rows[i], "rejected")[1]
            loss, margin = preference_terms(keys, chosen, rejected, references[i])
            step_loss, step_margin = step_loss + loss / len(batch), step_margin + margin.item() / len(batch)
            learnt = whole if with_prompts else chosen
            nll, nll_tokens = nll - learnt.sum(), nll_tokens + len(learnt)
        if orpo:
            step_loss = step_loss + nll / nll_tokens
        step_loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(step_loss.item())
        margins.append(step_margin)
    return losses, margins, trained_parts(model)


def train_by_trl(model_dir, adapter, rows, keys, folder):
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    if keys.get("train.objective") == "orpo":
        from trl.experimental.orpo import ORPOConfig as Config, ORPOTrainer as Trainer
        more = {}
    else:
        from trl import DPOConfig as Config, DPOTrainer as Trainer
        more = {"loss_type": keys.get("train.loss_type", "sigmoid")}

    class InOrder(Trainer):
        def _get_train_sampler(self, *_, **__):
            return SequentialSampler(self.train_dataset)

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.pad_token = tokenizer.eos_token  # masked
    arguments = Config(
        output_dir=os.path.join(folder, "trl"), per_device_train_batch_size=PAIRS_A_STEP, gradient_accumulation_steps=1, max_steps=STEPS,
        learning_rate=LR, adam_epsilon=EPS, weight_decay=0.0, lr_scheduler_type="linear", warmup_steps=WARMUP, max_grad_norm=NORM,
        optim="adamw_torch", beta=keys.get("train.beta", 0.1), max_length=1024, bf16=False, fp16=False, use_cpu=True,
        gradient_checkpointing=False, logging_steps=1, report_to="none", save_strategy="no", **more)
    trainer = InOrder(model=base_with(model_dir, adapter), args=arguments, train_dataset=Dataset.from_list(rows),
                      processing_class=tokenizer)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return ([entry["loss"] for entry in steps], [entry["rewards/margins"] for entry in steps], trained_parts(trainer.model))


def apart(ours, peer):
    """The largest difference, as a share of the peer's largest number."""
    return max(abs(a - b) for a, b in zip(ours, peer, strict=True)) / max(map(abs, peer))


def compare(name, keys, model_dir, folder, train_peer, allowed):
    here = os.path.join(folder, name.replace(" ", "_").replace(",", ""))
    os.makedirs(here)
    rows_path, adapter = os.path.join(here, "rows.jsonl"), os.path.join(here, "adapter")
    rows = make_pairs(rows_path, PAIRS_A_STEP if keys.get("data.packing") else PAIRS_A_STEP * 10)
    make_adapter(model_dir, adapter, {})
    ours = train_ours(model_dir, adapter, rows_path, os.path.join(here, "run"), keys)
    peer = train_peer(model_dir, adapter, rows, keys, here)
    start = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    assert peer[2].keys() == ours[2].keys(), peer[2].keys() ^ ours[2].keys()
    change = max((peer[2][key] - start[key]).abs().max().item() for key in start)
    difference = max((peer[2][key] - ours[2][key]).abs().max().item() for key in start)
    loss, margin = apart(ours[0], peer[0]), apart(ours[1], peer[1])
    print(f"{name:25} loss {peer[0][0]:.4f} -> {peer[0][-1]:.4f}, apart by {loss:.1e} of it; margin {peer[1][0]:.4f} -> "
          f"{peer[1][-1]:.4f}, {margin:.1e}; adapter changed by up to {change:.1e}, difference {difference / change:.1e} of it",
          flush=True)
    return difference <= 1e-3 * change and loss <= allowed and margin <= allowed


def require_trl():
    try:
        import trl
    except ImportError:
        sys.exit("needs trl 1.10 or later and datasets: pip install 'trl>=1.10' (or --formulas, which needs neither)")
    print(f"trl {trl.__version__}")


def main(folder, *options):
    logging.disable_progress_bar()
    formulas = "--formulas" in options
    if not formulas:
        require_trl()
    model_dir = os.path.join(folder, "tiny")
    make_model(model_dir)
    chosen = {name: keys for name, keys in CASES.items() if os.environ.get("ONLY", "") in name}  # ONLY: while working on one
    if not formulas:  # what TRL does not have
        chosen = {name: keys for name, keys in chosen.items()
                  if "train.label_smoothing" not in keys and name != "ORPO, answers alone"}
    good = [compare(name, keys, model_dir, folder, train_by_formulas if formulas else train_by_trl, 1e-4 if formulas else 1e-3)
            for name, keys in chosen.items()]
    return not all(good)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
