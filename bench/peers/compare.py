"""qlora beside PEFT, bitsandbytes, transformers and tokenizers on the same machine; run.sh calls this, `run.sh --help` lists the options.

Both sides of a row run as fresh processes in turns, A B A B. A side's figure is its median over the rounds, the ratio that of the
medians, its range that of the rounds' own ratios; above 1 qlora is ahead. Memory is the process's peak resident size as the kernel
counts it (wait4), of every side alike.

This process imports nothing large: a child's peak starts from its parent's.
"""
import argparse
import dataclasses
import json
import os
import platform
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LEAST_FREE = 0.05  # of the machine's memory
PROMPT, NEW_TOKENS = "Once upon a time, in a small village by the sea, there lived", 128


# What holds both sides to an instruction set: qlora, and the libraries of both.
HELD = {"avx2": {"QLORA_INSTRUCTION_SET": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
                 "MKL_ENABLE_INSTRUCTIONS": "AVX2"}}


@dataclasses.dataclass
class Place:
    """What run.sh made, and where things go."""
    build: str
    python: str
    model: str  # directory of 16-bit weights, for both sides
    gguf: str   # the file they come from
    work: str
    threads: int
    steps: int
    rows: str   # of --rows, or None
    dtype: str  # in which the peer multiplies
    environment: dict

    def tool(self, name):
        return os.path.join(self.build, "bin", name)

    def peer(self, script, *more):
        return [self.python, os.path.join(HERE, script), *map(str, more)]


@dataclasses.dataclass
class Done:
    """A process that has ended: what it printed, and when each piece came, in seconds from its start."""
    pieces: list  # (seconds, text) of stdout
    errors: list  # the same of stderr
    seconds: float
    peak_mb: float

    def text(self):
        return "".join(text for _, text in self.pieces)

    def when(self, words):
        """When words came that must have come."""
        times = [seconds for seconds, text in [*self.pieces, *self.errors] if words in text]
        return times[0] if times else sys.exit(f"'{words}' was never printed")


class OutOfMemory(Exception):
    """A process was ended because it left the machine less than LEAST_FREE of its memory; peak_mb is how far it came."""


def run(place, command, stdin=None):
    """Ends the comparison if the command fails. OutOfMemory."""
    env = dict(os.environ, OMP_NUM_THREADS=str(place.threads), **place.environment)
    start = time.perf_counter()
    with open(stdin or os.devnull) as given:
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        pieces, errors = watch(process, start)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == -signal.SIGKILL:
        raise OutOfMemory(f"out of memory above {usage.ru_maxrss * 1024 / 1e6:,.0f} MB")
    if process.returncode:
        printed = "".join(text for _, text in [*pieces, *errors])
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{printed[-3000:]}")
    return Done(pieces, errors, time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6)


def free_share():
    memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
    return memory["MemAvailable"] / memory["MemTotal"]


def watch(process, start):
    """What comes from stdout and stderr, with its time, until both are closed. Kills the process before the kernel has to kill any."""
    selector, found = selectors.DefaultSelector(), {process.stdout: [], process.stderr: []}
    for stream in found:
        selector.register(stream, selectors.EVENT_READ)
    while selector.get_map():
        if free_share() < LEAST_FREE:
            process.kill()
        for key, _ in selector.select(timeout=0.2):
            piece = os.read(key.fd, 1 << 20)
            if piece:
                found[key.fileobj].append((time.perf_counter() - start, piece.decode(errors="replace")))
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return list(found.values())


def last_json(done):
    return json.loads([line for line in done.text().splitlines() if line.startswith("{")][-1])


def measured(done, value, **more):
    return {"value": value, "peak_mb": round(done.peak_mb), "process_seconds": round(done.seconds, 2), **more}


# Training steps on rows of random tokens.

def our_steps(place, *options, steps=None):
    done = run(place, [place.tool("bench_train_step"), "--model", place.model, "--threads", str(place.threads), "--no-floor",
                       "--steps", str(steps or place.steps), *options])
    result = last_json(done)
    return measured(done, result["tokens_per_second"], result=result)


def peer_steps(place, *options, steps=None):
    done = run(place, place.peer("peft_train.py", "--model", place.model, "--dtype", place.dtype, "--steps", steps or place.steps,
                                 *options))
    result = last_json(done)
    return measured(done, result["tokens_per_second"], result=result)


def floor(place, *options):
    done = run(place, [place.tool("bench_train_step"), "--model", place.model, "--threads", str(place.threads),
                       "--steps", str(place.steps), *options])
    result = last_json(done)
    return measured(done, result["share_of_floor"], result=result)


# Whole runs on chat rows.

def orders(place, rows):
    folder = os.path.join(place.work, f"orders{rows}")
    if not os.path.exists(folder):
        run(place, [place.tool("make_orders"), folder, "--train", str(rows), "--test", "0"])
    return os.path.join(folder, "train.jsonl")


def chat_rows(place):
    return place.rows or orders(place, 600)


def train(place, model, rows, steps, sequence_length):
    """`qlora train`, and the step lines of its metrics."""
    folder = tempfile.mkdtemp(dir=place.work)
    recipe = {
        "model": {"path": model}, "quantization": {"method": "nf4"}, "lora": {"rank": 16, "alpha": 16},
        "data": {"train": [{"path": rows}], "sequence_length": sequence_length, "train_on": "all"},
        "optim": {"lr": 1e-4, "schedule": "constant"},
        "train": {"max_steps": steps, "gradient_checkpointing": False, "device": "cpu", "threads": place.threads},
        "output": {"dir": folder + "/run"}}
    with open(folder + "/recipe.yaml", "w") as file:
        json.dump(recipe, file)
    done = run(place, [place.tool("qlora"), "train", folder + "/recipe.yaml"])
    return done, [json.loads(line) for line in open(folder + "/run/metrics.jsonl")]


def our_chat(place):
    done, steps = train(place, place.model, chat_rows(place), place.steps + 2, 2048 if place.rows else 1024)
    timed = steps[2:]
    rate = sum(s["tokens"] for s in timed) / sum(s["step_seconds"] for s in timed)
    return measured(done, rate, tokens=[s["tokens"] for s in timed], seconds=[s["step_seconds"] for s in timed])


def peer_chat(place, *options):
    return peer_steps(place, "--chat", chat_rows(place), "--batch", "8", *options)


def our_start(place):
    done, steps = train(place, place.gguf, orders(place, 600), 1, 512)
    return measured(done, done.when("/1  loss "), tokens=steps[0]["tokens"])


def peer_start(place):
    done = run(place, place.peer("peft_train.py", "--model", place.model, "--dtype", place.dtype, "--chat", orders(place, 600), "--batch", 5,
                                 "--steps", 0))
    return measured(done, done.when("first step"))


# Generation and tokenization.

def quantized(place):
    folder = os.path.join(place.work, "nf4")
    if not os.path.exists(folder):
        run(place, [place.tool("qlora"), "quantize", "--model", place.model, "--method", "nf4", "--output", folder])
    return folder


def our_generation(place, model=None, options=()):
    model = model or quantized(place)
    done = run(place, [place.tool("qlora"), "generate", "--model", model, "--prompt", PROMPT, "--raw", "--threads", str(place.threads),
                       "--max-new-tokens", str(NEW_TOKENS), *options])
    text = os.path.join(place.work, "answer.txt")
    with open(text, "w") as file:
        file.write(done.text().removesuffix("\n"))
    tokens = len(run(place, [place.tool("qlora"), "tokenize", "--tokenizer", model, "--no-special-tokens"], stdin=text).text().split())
    times = [seconds for seconds, _ in done.pieces]
    # The line's end comes with the last token, so the last piece of text has its time.
    return measured(done, (tokens - 1) / (times[-1] - times[0]), tokens=tokens, text=done.text())


def peer_generation(place):
    done = run(place, place.peer("peft_generate.py", quantized(place), PROMPT, NEW_TOKENS, place.dtype))
    result = last_json(done)
    return measured(done, result["tokens_per_second"], result=result)


def our_gguf_generation(place):
    return our_generation(place, place.gguf)


def llama_generation(place):
    done = run(place, place.peer("llama_generate.py", place.gguf, PROMPT, NEW_TOKENS, place.threads))
    return measured(done, last_json(done)["tokens_per_second"])


def texts(place):
    path = os.path.join(place.work, "texts.jsonl")
    if not os.path.exists(path):
        with open(orders(place, 20000)) as rows, open(path, "w") as file:
            for row in rows:
                file.write(json.dumps("\n".join(message["content"] for message in json.loads(row)["messages"])) + "\n")
    return path


def count_ids(lines):
    return lines.count(",") + lines.count("\n")


def our_tokens(place):
    done = run(place, [place.tool("qlora"), "tokenize", "--jsonl", "--tokenizer", place.model], stdin=texts(place))
    return measured(done, count_ids(done.text()) / done.seconds)


def peer_tokens(place):
    done = run(place, place.peer("tokenize_rows.py", place.model + "/tokenizer.json"), stdin=texts(place))
    return measured(done, count_ids(done.text()) / done.seconds)


@dataclasses.dataclass
class Row:
    title: str
    ours: object
    peer: object = None  # None: nothing to compare with
    unit: str = "tokens/s"
    peer_once: bool = False


def steps_row(title, ours, peer, **more):
    return Row(title, lambda place: our_steps(place, *ours, **more), lambda place: peer_steps(place, *peer, **more))


def long_row(length):
    row = steps_row(f"1 x {length}, recomputed", ["--sequence", str(length), "--recompute"],
                    ["--sequence", str(length), "--checkpoint"], steps=1)
    row.peer_once = True
    return row


ROWS = {
    "1x512": steps_row("1 x 512", [], []),
    "4x512": steps_row("4 x 512, recomputed", ["--batch", "4", "--recompute"], ["--batch", "4", "--checkpoint"]),
    # What `qlora plan --fit 1.2GB` picks, less than a fifth of what the peer takes with recomputation.
    "4x512-fit": steps_row("4 x 512, as fits into 1.2 GB", ["--batch", "2"], ["--batch", "4", "--checkpoint"]),
    "bf16": steps_row("1 x 512 against PEFT on a bf16 base", [], ["--base", "none"]),
    "floor-1x512": Row("1 x 512, share of the floor", lambda p: floor(p), unit="of 1"),
    "floor-4x512": Row("4 x 512, recomputed, share of the floor", lambda p: floor(p, "--batch", "4", "--recompute"), unit="of 1"),
    "chat": Row("chat rows, packed against padded", our_chat, peer_chat),
    "chat-recomputed": Row("chat rows, packed against padded and recomputed", our_chat, lambda p: peer_chat(p, "--checkpoint")),
    "int8": steps_row("1 x 512, int8 base", ["--quantization", "int8"], ["--base", "int8"]),
    "int8-weights": steps_row("1 x 512, int8 base, 16-bit products", ["--quantization", "int8_weight_only"], ["--base", "int8"]),
    "1x2048": steps_row("1 x 2048, recomputed", ["--sequence", "2048", "--recompute"], ["--sequence", "2048", "--checkpoint"]),
    "1x2048-fit": steps_row("1 x 2048, as fits into 1.2 GB", ["--sequence", "2048", "--recompute", "4"],
                            ["--sequence", "2048", "--checkpoint"]),
    "1x8192": long_row(8192),
    "start": Row("command to first step", our_start, peer_start, unit="s"),
    "generate": Row(f"greedy generation, {NEW_TOKENS} tokens", our_generation, peer_generation),
    "generate-unguessed": Row(f"greedy generation, {NEW_TOKENS} tokens, none guessed from the text",
                              lambda p: our_generation(p, options=("--draft-tokens", "0")), peer_generation),
    "generate-gguf": Row(f"greedy generation from the Q4_1 file against llama.cpp, {NEW_TOKENS} tokens", our_gguf_generation,
                         llama_generation),
    "tokenize": Row("tokenization, whole process", our_tokens, peer_tokens),
}


def table_line(row, ours, peer, failed):
    def figures(side, key, digits):
        return f"{statistics.median(m[key] for m in side):,.{digits}f}" if side else ""
    digits = 0 if row.unit == "tokens/s" else 2
    ratio, memory = failed, ""
    if ours and peer:
        def ahead(a, b):
            return a / b if row.unit != "s" else b / a
        rounds = [ahead(a["value"], (peer[i] if i < len(peer) else peer[-1])["value"]) for i, a in enumerate(ours)]
        whole = ahead(*(statistics.median(m["value"] for m in side) for side in (ours, peer)))
        ratio = f"{whole:.2f} ({min(rounds):.2f} to {max(rounds):.2f})"
        memory = f"1/{statistics.median(m['peak_mb'] for m in peer) / statistics.median(m['peak_mb'] for m in ours):.1f}"
    return (f"| {row.title} | {row.unit} | {figures(ours, 'value', digits)} | {figures(peer, 'value', digits)} | {ratio} "
            f"| {figures(ours, 'peak_mb', 0)} | {figures(peer, 'peak_mb', 0)} | {memory} |")


def compare(name, row, place, rounds, raw):
    ours, peer, failed = [], [], ""
    for i in range(rounds):
        for side, measurements, measure in (("qlora", ours, row.ours), ("peer", peer, row.peer)):
            if measure is None or (side == "peer" and row.peer_once and i > 0):
                continue
            print(f"{name}, round {i + 1} of {rounds}: {side}", file=sys.stderr, flush=True)
            try:
                measurements.append(measure(place))
                raw.append({"row": name, "side": side, "round": i + 1, **measurements[-1]})
            except OutOfMemory as error:
                failed = f"{side} {error}"
                raw.append({"row": name, "side": side, "round": i + 1, "failed": str(error)})
    return table_line(row, ours, peer, failed)


def processor():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} logical processors"


HEADER = """| setting | unit | qlora | peer | ratio (its range over rounds) | qlora MB | peer MB | memory |
|---|---|---|---|---|---|---|---|"""


def arguments():
    parser = argparse.ArgumentParser(prog="bench/peers/run.sh", description="qlora beside its peers on the CPU")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="of " + ", ".join(ROWS) + " (default: all but generate-gguf, which needs llama-cpp-python)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="timed training steps of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--instructions", choices=HELD, help="hold both sides to this instruction set")
    parser.add_argument("--peer-dtype", choices=["bfloat16", "float32"], default="bfloat16",
                        help="in which the peer multiplies: float32 where the processor has no bfloat16 products")
    parser.add_argument("--rows", dest="file", metavar="FILE.jsonl", help="chat rows instead of the quickstart's orders, see self_instruct.py")
    parser.add_argument("--output", default="build/peers.md", help="table and raw lines, as Markdown")
    for made in ("build", "model", "gguf", "python", "work"):
        parser.add_argument("--" + made, required=True, help=argparse.SUPPRESS)  # run.sh gives these
    given = parser.parse_args()
    unknown = [name for name in given.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return given


def main():
    given = arguments()
    place = Place(given.build, given.python, given.model, given.gguf, given.work, given.threads, given.steps, given.file,
                  given.peer_dtype, HELD.get(given.instructions, {}))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    head = (f"{processor()}; {given.threads} threads, {given.rounds} rounds of {given.steps} steps; commit {commit or 'unknown'}; load "
            f"{os.getloadavg()[0]:.1f} at the start\n\n    bench/peers/run.sh {' '.join(sys.argv[sys.argv.index('--work') + 2:])}\n")
    print(f"{head}\n{HEADER}", flush=True)
    os.makedirs(os.path.dirname(os.path.abspath(given.output)), exist_ok=True)
    lines, raw = [], []
    for name in given.rows or [name for name in ROWS if name != "generate-gguf"]:
        lines.append(compare(name, ROWS[name], place, given.rounds, raw))
        print(lines[-1], flush=True)
        with open(given.output, "w") as file:  # after each row: a comparison that is stopped keeps what it has
            file.write("\n".join([head, HEADER, *lines, "", "```", *map(json.dumps, raw), "```", ""]))
    print(f"raw lines in {given.output}", file=sys.stderr)


main()
