"""LoRA training steps of PEFT, with bitsandbytes where the base is quantized: prints a line of JSON.

    python bench/peers/peft_train.py --model DIRECTORY [--base nf4|int8|none] [--batch 1] [--sequence 512] [--checkpoint]
    python bench/peers/peft_train.py --model DIRECTORY --chat ROWS.jsonl --batch 8
    python bench/peers/peft_train.py --model DIRECTORY --made --device cuda    # only config.json is read: random weights

Without --chat rows are random tokens, all supervised. With --chat they are rendered by the model's template and come in random order,
each batch padded to its longest row; tokens are counted without padding. "first step" is printed when the first step is done.

Nothing is evaluated before training: under no_grad bitsandbytes 0.50.2 repacks 4-bit weights on the CPU, and what trains after that
diverges.
"""
import argparse
import json
import random
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, logging

IGNORED = -100


def arguments():
    parser = argparse.ArgumentParser(description="PEFT's training steps")
    parser.add_argument("--model", required=True)
    parser.add_argument("--base", choices=["nf4", "int8", "none"], default="nf4")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--chat")
    parser.add_argument("--made", action="store_true", help="random weights in the shape of --model's config.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of the base and the products")
    parser.add_argument("--steps", type=int, default=5, help="timed, after one that is not")
    return parser.parse_args()


def quantization(base, dtype):
    if base == "nf4":
        return {"quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)}
    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)} if base == "int8" else {}


def made_base(path, base, dtype, device):
    """What from_pretrained would load and quantize, from random weights."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=dtype)
    if base == "nf4":
        import bitsandbytes as bnb
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                packed = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=module.bias is not None,
                                           compute_dtype=dtype, quant_type="nf4", compress_statistics=True, device="meta")
                packed.weight = bnb.nn.Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                                                  compress_statistics=True)
                model.set_submodule(name, packed.to(device))
        model.is_loaded_in_4bit = True
    elif base != "none":
        raise SystemExit(f"--made goes with --base nf4 and none, not {base}")
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return model


def load_base(path, base, checkpoint=False, dtype=torch.bfloat16, device="cpu", made=False):
    """As PEFT's documentation has it: norms, embedding and head of a quantized base become fp32."""
    if made:
        model = made_base(path, base, dtype, device)
    else:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map=device, **quantization(base, dtype))
    keep = {"use_reentrant": False}
    if base != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpoint, gradient_checkpointing_kwargs=keep)
    elif checkpoint:
        model.gradient_checkpointing_enable(keep)
        model.enable_input_require_grads()
    model.config.use_cache = False
    return model


def random_batches(given):
    generator = torch.Generator().manual_seed(1)
    while True:
        ids = torch.randint(3, 32000, (given.batch, given.sequence), generator=generator)
        yield {"input_ids": ids, "labels": ids}, ids.numel()


def chat_batches(given):
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in open(given.chat)]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    order = random.Random(1)
    while True:
        batch = order.sample(rows, given.batch)
        longest = max(map(len, batch))
        pad = [longest - len(row) for row in batch]
        yield {"input_ids": torch.tensor([row + [0] * n for row, n in zip(batch, pad)]),
               "attention_mask": torch.tensor([[1] * len(row) + [0] * n for row, n in zip(batch, pad)]),
               "labels": torch.tensor([row + [IGNORED] * n for row, n in zip(batch, pad)])}, sum(map(len, batch))


def main():
    given = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    adapter = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_base(given.model, given.base, given.checkpoint, getattr(torch, given.dtype), given.device, given.made), adapter).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    batches = chat_batches(given) if given.chat else random_batches(given)
    losses, seconds, tokens = [], [], []
    for step in range(given.steps + 1):
        start = time.perf_counter()
        batch, count = next(batches)
        batch = {name: ids.to(given.device) for name, ids in batch.items()}
        with torch.autocast(torch.device(given.device).type, dtype=torch.bfloat16, enabled=given.dtype == "bfloat16"):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        tokens.append(count)
        if step == 0:
            print("first step", flush=True)
    if given.steps:
        rate = sum(tokens[1:]) / sum(seconds[1:]) if given.chat else tokens[0] / statistics.median(seconds[1:])
        print(json.dumps({"tokens_per_second": rate, "step_seconds": seconds, "tokens": tokens, "first_loss": losses[0],
                          "allocator_mb": torch.cuda.max_memory_reserved() / 1e6 if given.device != "cpu" else None}))


if __name__ == "__main__":
    main()
