"""The whole way from files that you bring to a result that other programs run: a line each with PASS or FAIL, and figures.

    python tests/interop/clone_proofs.py FILES MODEL WORK [--program build/bin/qlora] [--chat-template NAME]

FILES is a folder with
- a table (*.csv) and two or more Parquet files (*.parquet), whose columns are those of a format in docs/formats.md: messages,
  conversations, instruction and output, prompt and completion, text. Which format it is, the program's own message tells;
- pairs of answers (*.jsonl) with chosen and rejected, and prompts or messages;
- a file of Axolotl (*.yml or *.yaml). MODEL takes the place of its base model; a data set of the Hub is looked for in FILES by the last
  part of its id, and of each data set the first 32 rows are taken.
MODEL is a small model, a Hugging Face directory or a .gguf file; one without a chat template needs --chat-template, and if its tokenizer
puts BOS in front, a template that writes it: llama-cpp-python leaves it out of conversations otherwise. WORK is an empty folder.
Without --program this repository is cloned into WORK and built there (`make build`). Needs PyYAML and, for the line of llama.cpp,
llama-cpp-python 0.3.36 with jinja2.

Trainings are of twelve steps on the first rows of up to 512 tokens (Axolotl's of two steps); their loss must fall.
"""
import argparse
import csv
import glob
import io
import json
import os
import re
import subprocess
import sys

import yaml
from safetensors import safe_open

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS, ROWS, LENGTH = 12, 32, 512
AS_A_START = 0.6931  # of DPO's loss: the policy is its own reference, -log sigmoid(0)


class Failed(Exception):
    pass


def run(*command, **more):
    """What it prints; Failed with its last line if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", **more)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise Failed(f"{os.path.basename(command[0])}: {lines[-1]}")
    return done.stdout + done.stderr


def metrics_of(run_folder):
    with open(os.path.join(run_folder, "metrics.jsonl")) as file:
        return [row for row in map(json.loads, file) if "step_seconds" in row]


def mean(values):
    return sum(values) / len(values)


def trained_adapter(run_folder):
    """The number of its tensors. Failed if one of B is still zero."""
    with safe_open(os.path.join(run_folder, "adapter", "adapter_model.safetensors"), "pt") as file:
        names = list(file.keys())
        idle = [name for name in names if ".lora_B" in name and not file.get_tensor(name).any()]
    if idle:
        raise Failed(f"{len(idle)} of {len(names)} tensors were not trained ({idle[0]})")
    return len(names)


class Proofs:
    """Each proof gives the figures of its line."""

    def __init__(self, files, model, work, program, chat_template):
        self.files, self.chat_template = files, chat_template
        self.model, self.work, self.program = map(os.path.abspath, (model, work, program))

    def path(self, name):
        return os.path.join(self.work, name)

    def given(self, *patterns, least=1):
        found = sorted(path for pattern in patterns for path in glob.glob(os.path.join(os.path.abspath(self.files), pattern)))
        if len(found) < least:
            raise Failed(f"{self.files} must have {least} or more of {' or '.join(patterns)}, and has {len(found)}")
        return found

    def recipe(self, name, datasets, train=None):
        """Its path. The run goes to `name` in the work folder."""
        recipe = {"model": {"path": self.model}, "quantization": {"method": "nf4"}, "lora": {"rank": 8, "alpha": 16},
                  "data": {"train": datasets, "sequence_length": LENGTH}, "optim": {"lr": 1e-3, "schedule": "constant"},
                  "train": {"max_steps": STEPS, "micro_batch_size": 1, "gradient_accumulation_steps": 2, "device": "cpu"} | (train or {}),
                  "output": {"dir": self.path(name)}}
        if self.chat_template:
            recipe["data"]["chat_template"] = self.chat_template
        with open(self.path(name + ".yaml"), "w") as file:
            yaml.safe_dump(recipe, file)
        return self.path(name + ".yaml")

    def dataset(self, path, **more):
        """With the format that the program says its rows look like, unless it is given."""
        entry = {"path": path, "format": "chat", "max_rows": ROWS, "max_tokens": LENGTH} | more
        if "format" in more:
            return entry
        try:
            run(self.program, "inspect", "data", self.recipe("look", [entry]), "--rows", "1")
        except Failed as failure:
            advice = re.search(r"set format: (\w+)(?: and fields: (\{[^}]*\}))?", str(failure))
            if not advice:
                raise
            entry |= {"format": advice[1]} | ({"fields": yaml.safe_load(advice[2])} if advice[2] else {})
        return entry

    def trained(self, name, datasets, train=None):
        """What the program printed, and the steps."""
        said = run(self.program, "train", self.recipe(name, datasets, train))
        steps = metrics_of(self.path(name))
        losses = [step["loss"] for step in steps]
        if len(losses) != STEPS or mean(losses[-3:]) >= mean(losses[:3]):
            raise Failed(f"the loss did not fall: {losses}")
        return said, steps

    def table(self):
        entry = self.dataset(self.given("*.csv")[0])
        said, steps = self.trained("csv", [entry])
        counted = re.search(r"\((\w+)\): (\d+) rows", said)
        return (f"{os.path.basename(entry['path'])} ({counted[1]}): {counted[2]} rows, loss {steps[0]['loss']:.3f} to "
                f"{steps[-1]['loss']:.3f}, {trained_adapter(self.path('csv'))} tensors in the adapter")

    def parquet(self):
        paths = self.given("*.parquet", least=2)
        entries = [self.dataset(path, weight=len(paths) - i) for i, path in enumerate(paths)]
        said, steps = self.trained("parquet", entries)
        shares = re.findall(r"weight (\S+), (\S+) % of the examples", said)
        wanted = [100 * entry["weight"] / sum(entry["weight"] for entry in entries) for entry in entries]
        if len(shares) != len(entries) or any(abs(float(share) - want) > 5 for (_, share), want in zip(shares, wanted)):
            raise Failed(f"the shares of an epoch are {shares}, and the weights ask for {wanted}")
        return (f"{len(paths)} files, of an epoch {', '.join(share for _, share in shares)} % (by the weights "
                f"{', '.join(f'{want:.1f}' for want in wanted)}), loss {steps[0]['loss']:.3f} to {steps[-1]['loss']:.3f}, "
                f"{trained_adapter(self.path('parquet'))} tensors in the adapter")

    def bad_row(self):
        """The table's first rows, and one with a field too many."""
        source = self.given("*.csv")[0]
        with open(source, newline="", encoding="utf-8-sig") as file:
            rows = [row for row, _ in zip(csv.reader(file), range(3))]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        line = text.getvalue().count("\n") + 1
        csv.writer(text, lineterminator="\n").writerow([*rows[-1], "one more"])
        with open(self.path("bad.csv"), "w", newline="", encoding="utf-8") as file:
            file.write(text.getvalue())
        entry = self.dataset(source) | {"path": self.path("bad.csv")}
        done = subprocess.run([self.program, "train", self.recipe("bad", [entry])], capture_output=True, text=True)
        left = set(os.listdir(self.path("bad"))) - {"log.txt"}
        if done.returncode != 2 or f"bad.csv:{line}:" not in done.stderr or left:
            raise Failed(f"exit code {done.returncode}, {len(left)} files beside the log, {done.stderr.strip()}")
        return done.stderr.strip().replace(self.work + "/", "").splitlines()[-1]

    def preferences(self):
        path = next((path for path in self.given("*.jsonl") if {"chosen", "rejected"} <= json.loads(open(path).readline()).keys()), None)
        if not path:
            raise Failed("no .jsonl file has chosen and rejected")
        _, steps = self.trained("dpo", [self.dataset(path, format="preference")], {"objective": "dpo", "gradient_accumulation_steps": 4})
        first, margin = steps[0]["loss"], mean([step["rewards_margin"] for step in steps[-3:]])
        if abs(first - AS_A_START) > 1e-3 or margin <= 0:
            raise Failed(f"the first loss is {first:.4f}, and the last margins are {margin:.4f} on average")
        return (f"{os.path.basename(path)}: loss {first:.4f} to {steps[-1]['loss']:.4f}, margin {steps[0]['rewards_margin']:.4f} to "
                f"{steps[-1]['rewards_margin']:.4f}, accuracy {steps[-1]['rewards_accuracy']:.2f}")

    def llama(self):
        """The run of the table, in llama.cpp."""
        said = run(sys.executable, os.path.join(HERE, "gguf_answers.py"), self.path("csv"), self.work,
                   env=os.environ | {"QLORA": self.program})
        same = len(re.findall(r": the same answer", said))
        if same == 0:
            raise Failed(said.splitlines()[-1])
        return f"{same} of {same} greedy answers are letter for letter those of qlora generate"

    def axolotl(self):
        """Its folder is one of links, into which the recipe is written."""
        source, folder = self.given("*.yml", "*.yaml")[0], self.path("axolotl")
        os.makedirs(folder)
        for name in os.listdir(self.files):
            if name != os.path.basename(source):
                os.symlink(os.path.abspath(os.path.join(self.files, name)), os.path.join(folder, name))
        with open(source, encoding="utf-8") as file:
            text = file.read()
        datasets = yaml.safe_load(text).get("datasets") or []
        for path in {entry["path"] for entry in datasets}:
            if not os.path.exists(os.path.join(folder, path)):
                text = text.replace(f"path: {path}", f"path: {self.downloaded(path)}")
        with open(os.path.join(folder, os.path.basename(source)), "w", encoding="utf-8") as file:
            file.write(text)
        recipe = os.path.join(folder, "recipe.yaml")
        said = run(self.program, "import", os.path.join(folder, os.path.basename(source)), "-o", recipe)
        changes = {"model.path": self.model, "output.dir": self.path("imported"), "train.max_steps": 2, "train.epochs": 0,
                   "train.micro_batch_size": 1, "train.gradient_accumulation_steps": 1, "train.device": "cpu",
                   "data.sequence_length": LENGTH}
        changes |= {f"data.train[{i}].max_rows": ROWS for i in range(len(datasets))}
        if self.chat_template:
            changes["data.chat_template"] = self.chat_template
        run(self.program, "train", recipe, *(word for key, value in changes.items() for word in ("--set", f"{key}={value}")))
        losses = [step["loss"] for step in metrics_of(self.path("imported"))]
        if len(losses) != 2:
            raise Failed(f"{len(losses)} steps were trained")
        return f"{re.search(r'[0-9]+ of [0-9]+ keys are in the recipe', said)[0]}, two steps: loss {losses[0]:.3f}, {losses[1]:.3f}"

    def downloaded(self, hub_id):
        """The name of its file in FILES."""
        found = self.given(hub_id.rsplit("/", 1)[-1] + ".*")
        return os.path.basename(found[0])


def built_program(work):
    clone = os.path.join(work, "clone")
    run("git", "clone", "--quiet", os.path.dirname(os.path.dirname(HERE)), clone)
    run("make", "-C", clone, "build")
    return os.path.join(clone, "build", "bin", "qlora")


PROOFS = {"CSV to adapter": "table", "Parquet mixture to adapter": "parquet",
          "a bad row is named, and no more than a log is left": "bad_row",
          "DPO on pairs": "preferences", "GGUF in llama.cpp": "llama", "Axolotl's file imported and trained": "axolotl"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files")
    parser.add_argument("model")
    parser.add_argument("work")
    parser.add_argument("--program")
    parser.add_argument("--chat-template")
    given = parser.parse_args()
    os.makedirs(given.work, exist_ok=True)
    if os.listdir(given.work):
        parser.error(f"{given.work} is not empty")
    proofs = Proofs(given.files, given.model, given.work, given.program or built_program(given.work), given.chat_template)
    failed = 0
    for title, name in PROOFS.items():
        try:
            line = f"PASS  {title}: {getattr(proofs, name)()}"
        except Failed as failure:
            line, failed = f"FAIL  {title}: {failure}", failed + 1
        print(line, flush=True)
    print(f"{len(PROOFS) - failed} of {len(PROOFS)} pass")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
