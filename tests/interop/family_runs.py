"""Every family through what a run can do, on the checkpoints of families.py: one line a variant.

    python tests/interop/family_runs.py FOLDER [FAMILY...] [--all] [--program build/bin/qlora] [--jobs N] [--only CHECK,...]

FAMILY and FOLDER as in families.py, whose models are made here where FOLDER lacks them; without FAMILY, one variant of each family that
the program reads and the unusual ones, and with --all every variant. Runs are of a few steps on rows that repeat themselves, with products
in float32. A line shows
- fp32, nf4, int8, bf16: the first and the last loss on that base; the last must be less, and the first within 0.15 of fp32's;
- recompute, resume: adapters of nf4 runs with recomputed layers, and of one that goes on from the checkpoint of step 3: the same bytes;
- packed: the first loss of packed rows less that of separate ones, fp32, and the larger difference from transformers;
- loftq, dora (with rank_pattern, lora.bias all and the last norm in modules_to_save), whole (modules_to_save with embedding and head),
  tokens (trainable_token_indices): loss as above; what PEFT reads of the adapter must be what the file holds, and the model must have the
  same losses with it (not after LoftQ, which changes the base; where an encoder-decoder model has its embedding trained, whole or, if its
  head is another matrix, a few tokens, PEFT keeps that apart from what encoder and decoder read: the merged export in transformers);
- experts: DoRA on experts is refused;
- greedy: answers of qlora evaluate --exact-match to prompts longer than the windows, against transformers' argmax of whole sequences;
- merged: the nf4 run merged in float32, in transformers, against qlora evaluate of the run: difference of a row's loss;
- adapter: the export as adapter holds the run's tensors;
- separate: so does one with an adapter for each matrix of an expert, after it was read and exported as adapter again; in Mixtral, whose
  modules PEFT knows by their old names too, such a one in PEFT, against qlora evaluate of the run: difference of a row's loss;
- quantized: the first loss on what qlora quantize wrote less that of the nf4 run;
- memory: of the nf4 run, measured / predicted.
A "!" marks what fails. What the program refuses shows its last line.

Encoder-decoder models read the first half of a row and learn to give the second.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import sys
import traceback

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, logging

import families
from families import Refused, VARIANTS, read_json, run, write_json
from made_model import EOS

STEPS, ROWS = 6, 12
UNUSUAL = (
    "bloom, residual from the norm, six heads", "opt, as 350m", "opt, norms without weights, names without prefix",
    "falcon, as RW, six heads", "falcon, as 40B", "falcon, as 11B", "gpt2, as published, scaled by layer",
    "gemma3, multimodal", "stablelm, parallel, norms of heads, biases", "phi, norms of heads, old spelling",
    "cohere, norms of heads, biases, old spelling", "gpt_neox, sequential, old spelling", "llama, biases, head size of its own",
    "mixtral, window, stacked experts, old spelling", "qwen2_moe, renormalised, dense layers, windows",
    "granitemoe, biases, tied, old spelling", "gpt_oss, MXFP4 file", "phi3, longrope, window, old spelling",
    "t5, other depth of the decoder, old spelling", "t5, as FLAN, head of its own", "mt5, tied")


def chosen_variants(names, every):
    chosen = families.choose(names, first_only=False)
    if names or every:
        return chosen
    first = {}
    for variant in chosen:
        first.setdefault(variant.family, variant.name)
    return [variant for variant in chosen if variant.name in (*first.values(), *UNUSUAL)]


def make_rows(path, seq2seq):
    """A few tokens in turn, ends included; the first ones are not trained."""
    generator = torch.Generator().manual_seed(4)
    rows = []
    for i in range(ROWS):
        motif = torch.randint(2, 200, (2 + i % 3,), generator=generator).tolist()
        ids = (motif * 20)[:20 + 2 * i] + [EOS]
        half = len(ids) // 2 if seq2seq else 0
        rows.append({"input_ids": ids[:half] if seq2seq else ids, "labels": [-100] * 4 + ids[half + 4:]})
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


class Model:
    """A checkpoint, and what transformers and PEFT say of it."""

    def __init__(self, variant, folder):
        self.folder, self.seq2seq, self.family = families.theirs(variant, folder), variant.seq2seq, variant.family
        self.checkpoint = os.path.join(self.folder, "checkpoint")
        self.here = os.path.join(self.folder, "runs")
        shutil.rmtree(self.here, ignore_errors=True)
        os.makedirs(self.here)
        self.rows_path = os.path.join(self.here, "rows.jsonl")
        self.rows = make_rows(self.rows_path, self.seq2seq)
        model = self.load()
        names = {id(module): name for name, module in model.named_modules()}
        self.embedding, self.head = names[id(model.get_input_embeddings())], names[id(model.get_output_embeddings())]
        self.tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        norms = [name for name, module in model.named_modules()
                 if re.search("Norm", type(module).__name__) and list(module.parameters()) and "vision" not in name]
        self.last_norm = norms[-1:]  # OLMo 1 has none with weights
        config = read_json(self.folder, "adapter", "adapter_config.json")
        adapter = load_file(os.path.join(self.folder, "adapter", "adapter_model.safetensors"))
        self.linear = sorted({key.removeprefix("base_model.model.").split(".lora_")[0] for key in adapter} -
                             {name for name in self.linear_of_experts(adapter)})
        self.parameters = None if "parameters" in variant.special else config["target_parameters"]  # of all-linear
        self.has_biases = any(name.endswith("bias") for name, _ in model.named_parameters())
        self.has_experts = any(re.search("experts", name) for name, _ in model.named_parameters())

    @staticmethod
    def linear_of_experts(adapter):
        return {key.removeprefix("base_model.model.").split(".lora_")[0] for key in adapter
                if re.search(r"experts|router|\.gate\.|base_layer", key)}

    def load(self, path=None):
        return families.load(path or self.checkpoint)

    def train(self, name, more, *arguments):
        """The run's folder. Keys of `more` are sections with dots."""
        recipe = {"model": {"path": self.checkpoint}, "quantization": {"method": "nf4"}, "lora": {"rank": 4, "alpha": 16},
                  "data": {"train": [{"path": self.rows_path, "format": "pretokenized"}], "shuffle": False, "packing": False,
                           "sequence_length": 256},
                  "optim": {"name": "adamw", "lr": 0.01, "schedule": "constant"},
                  "train": {"max_steps": STEPS, "micro_batch_size": 6, "gradient_accumulation_steps": 2, "device": "cpu",
                            "threads": 1, "compute_dtype": "float32", "gradient_checkpointing": False, "save_every": 3}}
        output = os.path.join(self.here, name)
        recipe["output"] = {"dir": output}
        for key, value in more.items():
            section, key = key.split(".")
            recipe[section][key] = value
        write_json(recipe, self.here, name + ".yaml")
        run(families.PROGRAM, "train", os.path.join(self.here, name + ".yaml"), *arguments)
        return output


def losses_of(run_folder):
    with open(os.path.join(run_folder, "metrics.jsonl")) as file:
        return [row["loss"] for row in map(json.loads, file) if "loss" in row and "step_seconds" in row]


def adapter_hash(folder):
    with open(os.path.join(folder, "adapter_model.safetensors"), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def row_loss(model, row):
    """Sum over the trained tokens."""
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    if model.config.is_encoder_decoder:
        logits = model(input_ids=ids, labels=labels).logits[0]
    else:
        logits, labels = model(ids).logits[0, :-1], labels[:, 1:]
    return torch.nn.functional.cross_entropy(logits.float(), labels[0], reduction="sum").item()


def row_losses(model, rows):
    with torch.no_grad():
        return [row_loss(model, row) for row in rows]


def evaluated(run_folder, rows_path, row_format="pretokenized", *more):
    said = run(families.PROGRAM, "evaluate", *run_folder, "--data", rows_path, "--format", row_format, "--json", "--threads", "1",
               "--compute-dtype", "float32", *more)
    return json.loads(said[said.index("[\n"):said.rindex("]") + 1])[-1]


def greedy_answer(model, prompt, most):
    """Token by token, of whole sequences."""
    seq2seq = model.config.is_encoder_decoder
    source = torch.tensor([prompt + [EOS]])
    ids = begin = [model.config.decoder_start_token_id] if seq2seq else prompt
    with torch.no_grad():
        while len(ids) < len(begin) + most and ids[-1] != EOS:
            read = torch.tensor([ids])
            logits = model(input_ids=source, decoder_input_ids=read).logits if seq2seq else model(read).logits
            ids = ids + [logits[0, -1].argmax().item()]
    return ids[len(begin):]


def worst(a, b, rows):
    """Of a token's loss, on average within a row."""
    return max(abs(x - y) / len(row["labels"]) for x, y, row in zip(a, b, rows, strict=True))


class Checks:
    """Each gives a text and whether it is good."""

    def __init__(self, model):
        self.model, self.runs = model, {}

    def trained(self, name, more):
        if name not in self.runs:
            self.runs[name] = self.model.train(name, more)
        return self.runs[name]

    FP32 = {"model.dtype": "float32", "quantization.method": "none"}

    def fp32_run(self):
        return self.trained("fp32", self.FP32)

    def nf4_run(self):
        return self.trained("nf4", {})

    def base(self, name, more):
        losses, first = losses_of(self.trained(name, more)), losses_of(self.fp32_run())[0]
        good = len(losses) == STEPS and losses[-1] < losses[0] and abs(losses[0] - first) < 0.15
        return f"{losses[0]:.3f}>{losses[-1]:.3f}", good

    def fp32(self):
        return self.base("fp32", self.FP32)

    def nf4(self):
        return self.base("nf4", {})

    def int8(self):
        return self.base("int8", {"quantization.method": "int8"})

    def bf16(self):
        return self.base("bf16", {"quantization.method": "none", "model.dtype": "bfloat16", "train.compute_dtype": "bfloat16"})

    def same_bytes(self, run_folder):
        same = adapter_hash(os.path.join(run_folder, "adapter")) == adapter_hash(os.path.join(self.nf4_run(), "adapter"))
        return "same" if same else "other bytes", same

    def recompute(self):
        return self.same_bytes(self.trained("recompute", {"train.gradient_checkpointing": True}))

    def resume(self):
        """From what a run leaves that is killed in its last step."""
        resumed = os.path.join(self.model.here, "resumed")
        shutil.copytree(self.nf4_run(), resumed, ignore=shutil.ignore_patterns("adapter", "checkpoint-000006"))
        shutil.copytree(os.path.join(self.nf4_run(), "checkpoint-000003"), os.path.join(resumed, "checkpoint-000003"), dirs_exist_ok=True)
        said = run(families.PROGRAM, "resume", resumed)
        text, same = self.same_bytes(resumed)
        return text, same and "checkpoint-000003" in said

    def packed(self):
        once = {"train.max_steps": 1, "train.gradient_accumulation_steps": 1}
        losses = [losses_of(self.trained(name, self.FP32 | once | more))[0] for name, more in (
            ("separate", {"train.micro_batch_size": ROWS}), ("packed", {"data.packing": True, "train.micro_batch_size": 3}))]
        trained = sum(label != -100 for row in self.model.rows for label in row["labels"])
        peer = sum(row_losses(self.model.load(), self.model.rows)) / trained
        apart = max(abs(loss - peer) for loss in losses)
        return f"{losses[1] - losses[0]:.1e}, transformers {apart:.1e}", apart < 2e-5

    def in_peft(self, name, more):
        """Trains with float32 weights; PEFT's model with the adapter must have the losses of the run's."""
        text, good = self.base(name, self.FP32 | more)
        folder = os.path.join(self.runs[name], "adapter")
        peer = PeftModel.from_pretrained(self.model.load(), folder).eval()
        stored = load_file(os.path.join(folder, "adapter_model.safetensors"))
        read = get_peft_model_state_dict(peer, save_embedding_layers=False)
        if self.model.tied:  # the second name of one matrix, which PEFT lists for some families alone
            stored.pop(f"base_model.model.{self.model.head}.weight", None)
        wrong = [key for key in stored if not (key in read and torch.equal(read[key], stored[key]))]
        ours = evaluated([self.runs[name]], self.model.rows_path)
        apart = worst(row_losses(peer, self.model.rows), [row["nll"] for row in ours["rows"]], self.model.rows)
        missing = f", {len(wrong)} of {len(stored)} not in PEFT ({wrong[0]})" if wrong else ""
        return f"{text}, PEFT {apart:.1e}{missing}", good and not wrong and apart < 2e-5

    def in_merged(self, name, more):
        """The same with the merged export in transformers."""
        text, good = self.base(name, self.FP32 | more)
        apart = self.merged_apart(self.runs[name], name + "_merged")
        return f"{text}, merged {apart:.1e}", good and apart < 2e-5

    def loftq(self):
        return self.base("loftq", {"lora.init": "loftq", "lora.loftq": {"iterations": 1}})

    def dora(self):
        more = {"lora.use_dora": True, "lora.modules_to_save": self.model.last_norm,
                "lora.targets": sorted({name.rsplit(".", 1)[-1] for name in self.model.linear}),
                "lora.rank_pattern": {self.model.linear[0].rsplit(".", 1)[-1]: 2, self.model.linear[-1]: 3}}
        if self.model.has_biases:
            more["lora.bias"] = "all"
        return self.in_peft("dora", more)

    def whole(self):
        names = [self.model.embedding] + ([] if self.model.tied else [self.model.head])
        more = {"lora.modules_to_save": [name.rsplit(".", 1)[-1] for name in names], "lora.ensure_weight_tying": self.model.tied}
        return self.in_merged("whole", more) if self.model.seq2seq else self.in_peft("whole", more)

    def tokens(self):
        more = {"lora.trainable_token_indices": {
            self.model.embedding.rsplit(".", 1)[-1]: [EOS, *self.model.rows[0]["input_ids"][:2]]}}
        apart = self.model.seq2seq and not self.model.tied
        return self.in_merged("tokens", more) if apart else self.in_peft("tokens", more)

    def experts(self):
        if not self.model.has_experts:
            return "-", True
        try:
            self.model.train("experts", {"lora.use_dora": True, "lora.target_parameters": self.model.parameters or ["down_proj"]})
        except Refused as refusal:
            return f"refused: {refusal}", "dora" in str(refusal).lower()
        return "DoRA is not refused", False

    def greedy(self):
        """The tokenizer has no decoder, so that the letters that stand for bytes can be read; ids without a token are left out."""
        generator = torch.Generator().manual_seed(6)
        lengths = range(5, 45, 3)
        texts = ["".join(chr(c) for c in torch.randint(33, 127, (length,), generator=generator).tolist()) for length in lengths]
        path = os.path.join(self.model.here, "letters.jsonl")
        with open(path, "w") as file:
            file.writelines(json.dumps({"prompt": text, "completion": "x"}) + "\n" for text in texts)
        found = evaluated(["--model", self.model.checkpoint], path, "completion", "--exact-match", "--max-new-tokens", "24")["answers"]
        peer, tokenizer = self.model.load(), PreTrainedTokenizerFast.from_pretrained(self.model.checkpoint)
        same, chosen = 0, set()
        for text, answer in zip(texts, found, strict=True):
            ids = greedy_answer(peer, tokenizer(text).input_ids, 24)
            same += answer["generated"] == tokenizer.decode(ids, skip_special_tokens=True)
            chosen |= set(ids)
        return f"{same}/{len(texts)} of {len(chosen)} tokens", same == len(texts)

    def merged_apart(self, run_folder, name):
        path = os.path.join(self.model.here, name)
        run(families.PROGRAM, "export", run_folder, "--format", "merged", "--dtype", "float32", "--threads", "1", "--output", path)
        ours = evaluated([run_folder], self.model.rows_path)
        return worst(row_losses(self.model.load(path), self.model.rows), [row["nll"] for row in ours["rows"]], self.model.rows)

    def merged(self):
        apart = self.merged_apart(self.nf4_run(), "merged")
        return f"{apart:.1e}", apart < 2e-5

    def adapter(self):
        path = os.path.join(self.model.here, "exported")
        run(families.PROGRAM, "export", self.nf4_run(), "--format", "adapter", "--threads", "1", "--output", path)
        same = adapter_hash(path) == adapter_hash(os.path.join(self.nf4_run(), "adapter"))
        return "same" if same else "other bytes", same

    def separate(self):
        """Experts in the form of transformers 4 and, read from it, in today's again."""
        if not self.model.has_experts:
            return "-", True
        path, again = (os.path.join(self.model.here, name) for name in ("separate", "stacked_again"))
        run(families.PROGRAM, "export", self.nf4_run(), "--format", "adapter", "--experts", "separate", "--threads", "1", "--output", path)
        modules = {key.split(".lora_")[0] for key in load_file(os.path.join(path, "adapter_model.safetensors"))}
        if not any(re.search(r"experts\.\d+\.", module) for module in modules):
            return "no experts apart", not self.model.parameters
        run(families.PROGRAM, "export", "--model", self.model.checkpoint, "--adapter", path, "--format", "adapter", "--threads", "1",
            "--output", again)
        same = adapter_hash(again) == adapter_hash(os.path.join(self.nf4_run(), "adapter"))
        text, good = "same" if same else "other bytes", same
        if self.model.family == "mixtral":
            apart = self.separate_in_peft()
            text, good = f"{text}, PEFT {apart:.1e}", good and apart < 2e-5
        return text, good

    def separate_in_peft(self):
        """PEFT puts the factors of w1 and w3 into one adapter of twice its r, whatever rank they have: here it is r."""
        name = "rank_of_all"
        self.trained(name, self.FP32 | {"lora.rank_pattern": {r".*\.gate_up_proj": 4}})
        path = os.path.join(self.model.here, name + "_separate")
        run(families.PROGRAM, "export", self.runs[name], "--format", "adapter", "--experts", "separate", "--threads", "1",
            "--output", path)
        peer = PeftModel.from_pretrained(self.model.load(), path).eval()
        ours = evaluated([self.runs[name]], self.model.rows_path)
        return worst(row_losses(peer, self.model.rows), [row["nll"] for row in ours["rows"]], self.model.rows)

    def quantized(self):
        path = os.path.join(self.model.here, "quantized")
        run(families.PROGRAM, "quantize", "--model", self.model.checkpoint, "--threads", "1", "--output", path)
        found = losses_of(self.trained("stored", {"model.path": path, "quantization.method": "as_stored", "train.max_steps": 2}))[0]
        apart = abs(found - losses_of(self.nf4_run())[0])
        return f"{apart:.1e}", apart < 2e-5

    def memory(self):
        with open(os.path.join(self.nf4_run(), "log.txt")) as file:
            predicted, measured = re.search(r"memory: (\d+ \w+) predicted, (\d+ \w+) measured", file.read()).groups()
        return f"{measured} / {predicted}", True


CHECKS = ("fp32", "nf4", "int8", "bf16", "recompute", "resume", "packed", "loftq", "dora", "whole", "tokens", "experts", "greedy",
          "merged", "adapter", "separate", "quantized", "memory")


def line_of(index, arguments):
    families.PROGRAM = arguments.program
    variant, folder, names = VARIANTS[index], arguments.folder, arguments.only.split(",")
    line = families.Line(variant.name)
    try:
        checks = Checks(Model(variant, folder))
        for name in names:
            try:
                text, good = getattr(checks, name)()
            except Refused as refusal:
                text, good = f"refused: {refusal}", False
            except Exception as error:  # of transformers, PEFT or this script: the others are still to be tried
                traceback.print_exc()
                text, good = f"{type(error).__name__}: {str(error)[:300]}", False
            line.add(f"{name} {text}", good)
    except Exception as error:
        traceback.print_exc()
        line.add(f"{type(error).__name__}: {str(error)[:300]}", False)
    print(" | ".join(line.parts), flush=True)
    return line.good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("families", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--program", default=families.PROGRAM)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default=",".join(CHECKS))
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    families.PROGRAM = arguments.program
    variants = [VARIANTS.index(variant) for variant in chosen_variants(arguments.families, arguments.all)]
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        lines = [pool.submit(line_of, index, arguments) for index in variants]
        good = [line.result() for line in lines]
    print(f"{sum(good)} of {len(good)} pass")
    return not all(good)


if __name__ == "__main__":
    sys.exit(main())
