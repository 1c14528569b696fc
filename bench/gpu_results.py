"""results.md of the logs that bench/gpu.sh left in FOLDER/parts: goals beside the figures.

    python bench/gpu_results.py FOLDER
"""
import json
import os
import re
import sys

TOKENS_A_SECOND = {"8b": 18000, "8b-recomputed": 13500, "1.7b": 60000, "0.6b": 90000}
HELD_MB = {"8b-memory": 7400}
MEMORY_OFF, TIME_OFF = 0.05, 0.20            # of the plan
FLOAT_LOSS_OFF, HALF_LOSS_OFF = 1e-3, 1e-2   # of the CPU's losses in fp32
ROWS = {"8b": "8B, 4 x 2048", "8b-recomputed": "8B, 4 x 2048, recomputed", "1.7b": "1.7B, 4 x 2048", "0.6b": "0.6B, 4 x 2048",
        "8b-memory": "8B, 1 x 2048, recomputed", "8b-bf16": "8B on a bf16 base, 4 x 2048, recomputed",
        "8b-int8": "8B in LLM.int8(), 4 x 2048, recomputed"}
PLANNED = {"plan-0.6b": ["0.6b"], "plan-1.7b": ["1.7b"], "plan-8b": ["8b", "8b-recomputed", "8b-memory"]}
CODES = {0: "done", 77: "not there", 124: "out of time", 137: "out of time"}
NONE = "-"


class Folder:
    def __init__(self, path):
        self.path = path
        self.parts = [line.split(" ", 2) for line in self.read("parts.txt").splitlines()]

    def read(self, name):
        try:
            with open(os.path.join(self.path, name), errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def log(self, part):
        return self.read(f"parts/{part}.log")

    def state(self, part):
        """(exit code, seconds), or None of a part that has not finished."""
        words = self.read(f"parts/{part}.state").split()
        return (int(words[0]), int(words[1])) if words else None

    def finished(self, part):
        state = self.state(part)
        return state is not None and state[0] == 0

    def word(self, part):
        state = self.state(part)
        return "not run" if state is None else CODES.get(state[0], f"FAILED ({state[0]})")

    def json_line(self, part):
        """The last line of a finished part's log that is a JSON object, else {}."""
        if not self.finished(part):
            return {}
        for line in reversed(self.log(part).splitlines()):
            if line.startswith("{") and line.endswith("}"):
                return json.loads(line)
        return {}


def verdict(good):
    return "PASS" if good else "BELOW"


def number(value, form="{:,.0f}"):
    return NONE if value is None else form.format(value)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines) + "\n"


def parts_section(folder):
    return "## Parts\n\n" + table(["part", "what", "state", "seconds", "limit"], [
        [name, what, folder.word(name), (folder.state(name) or ("", NONE))[1], limit] for name, limit, what in folder.parts])


def count(log, word):
    found = re.findall(rf"^\[  ?{word} *\] (\d+) tests?", log, re.M)
    return int(found[-1]) if found else 0


def tests_row(folder, part):
    log = folder.log(part)
    passed, skipped, failed = (count(log, word) for word in ("PASSED", "SKIPPED", "FAILED"))
    good = folder.finished(part) and passed > 0 and skipped == failed == 0
    return [part, folder.word(part), passed, skipped, failed, verdict(good) if folder.state(part) else NONE]


def sanitizer_row(folder, part):
    summaries = re.findall(r"ERROR SUMMARY: (\d+) error", folder.log(part))
    ran = folder.state(part) is not None and folder.state(part)[0] != 77
    return [part, f"{sum(map(int, summaries))} errors in {len(summaries)} programs" if summaries else folder.word(part),
            verdict(folder.finished(part)) if ran else NONE]


def bytes_row(folder):
    found = re.findall(r"^total: (\d+) of (\d+) bytes differ", folder.log("gate-bytes"), re.M)
    if not found:
        return ["bytes of bitsandbytes", folder.word("gate-bytes"), "0 differ", NONE]
    return ["bytes of bitsandbytes", f"{int(found[-1][0]):,} of {int(found[-1][1]):,} differ", "0 differ", verdict(found[-1][0] == "0")]


def loss_rows(folder):
    runs = [(kind, [float(loss) for loss in losses.split()])
            for kind, losses in re.findall(r"^losses (\w+) \w+: (.*)$", folder.log("gate-losses"), re.M)]
    names = ["float32 on the CPU", "float32 on the device", "bfloat16 on the CPU", "bfloat16 on the device"]
    if not runs:
        return [["20 steps", folder.word("gate-losses"), NONE, NONE]]
    rows, wanted = [], runs[0][1]
    for name, (kind, losses) in zip(names, runs):
        same = len(losses) == len(wanted) > 0
        off = max(abs(a / b - 1) for a, b in zip(losses, wanted)) if same else float("nan")
        most = FLOAT_LOSS_OFF if kind == "float32" else HALF_LOSS_OFF
        rows.append([f"20 steps, {name}", f"{losses[0]:.4f} to {losses[-1]:.4f}, apart by {off:.1e} at most" if same else "no losses",
                     f"{most:.0e} of the first row", verdict(same and off <= most)])
    return rows


def peft_gate_rows(folder):
    rows = []
    for part in ("gate-peft-loss", "gate-peft-gradient"):
        lines = [line for line in folder.log(part).splitlines() if re.match(r"(loss|gradient)[:,]", line)]
        met = [line for line in lines if line.endswith(": met") or line.endswith(": NOT met")]
        facts = [line for line in lines if line not in met]
        good = folder.finished(part) and bool(met) and all(line.endswith(": met") for line in met)
        ran = folder.state(part) is not None and folder.state(part)[0] != 77
        rows.append([part, "<br>".join(facts) or folder.word(part), "as bench/peers/gates.py has it", verdict(good) if ran else NONE])
    return rows


def right_section(folder):
    names = [name for name, _, _ in folder.parts]
    text = "## Right\n\n" + table(["gpu tests", "state", "passed", "skipped", "failed", ""],
                                  [tests_row(folder, name) for name in names if name.startswith("tests-")])
    text += table(["compute-sanitizer", "found", ""], [sanitizer_row(folder, name) for name in names if name.startswith("sanitize-")])
    return text + table(["gate", "found", "goal", ""], [bytes_row(folder), *loss_rows(folder), *peft_gate_rows(folder)])


def rate_of(line):
    return line.get("tokens_per_second")


def speed_row(folder, row):
    ours, theirs = folder.json_line(f"speed-{row}"), folder.json_line(f"peft-{row}")
    rate, peer, goal = rate_of(ours), rate_of(theirs), TOKENS_A_SECOND.get(row)
    return [ROWS[row], number(rate) if ours else folder.word(f"speed-{row}"), number(goal), verdict(rate >= goal) if ours and goal else NONE,
            number(ours.get("share_of_floor"), "{:.2f}"), number(peer) if theirs else folder.word(f"peft-{row}"),
            number(rate / peer, "{:.1f}") if rate and peer else NONE, number(ours.get("held_mb")), number(ours.get("peak_mb")),
            number(theirs.get("allocator_mb")), number(ours.get("first_loss"), "{:.3f}"), number(theirs.get("first_loss"), "{:.3f}")]


def memory_row(folder, row):
    held, goal = folder.json_line(f"speed-{row}").get("held_mb"), HELD_MB[row]
    return [ROWS[row], number(held), number(goal), verdict(held <= goal) if held is not None else NONE]


def fast_section(folder):
    return ("## Fast\n\nShare of the floor: what the products that nobody can leave out take alone, by ATen, on ready 16-bit weights. MB held by "
            "the allocators at most, and for qlora taken on the whole device, context included.\n\n"
            + table(["setting", "qlora, tokens/s", "goal", "", "share of the floor", "PEFT, tokens/s", "ratio", "qlora holds", "device",
                     "PEFT holds", "first loss", "PEFT's"], [speed_row(folder, row) for row in ROWS])
            + table(["memory held", "MB", "goal: at most", ""], [memory_row(folder, row) for row in HELD_MB]))


def plans_in(log):
    """By row; a plan is a JSON object behind a line "plan of ROW"."""
    plans = {}
    for text in re.split(r"^plan of ", log, flags=re.M)[1:]:
        row, _, rest = text.partition("\n")
        try:
            plans[row.strip()] = json.JSONDecoder().raw_decode(rest[rest.index("{"):])[0]
        except ValueError:
            continue
    return plans


def plan_row(folder, part, row):
    plan, ours = plans_in(folder.log(part)).get(row), folder.json_line(f"speed-{row}")
    if not plan:
        return [ROWS[row], folder.word(part), *[NONE] * 7]
    memory, time = plan["peak_bytes"] / 1e6, (plan["time"] or {}).get("tokens_a_second")
    measured, rate = ours.get("peak_mb"), rate_of(ours)
    memory_off = memory / measured - 1 if measured else None
    time_off = time / rate - 1 if time and rate else None

    def judged(off, most):
        return [number(off, "{:+.1%}"), NONE if off is None else verdict(abs(off) <= most)]

    return [ROWS[row], number(memory), number(measured), *judged(memory_off, MEMORY_OFF), number(time), number(rate),
            *judged(time_off, TIME_OFF)]


def planned_section(folder):
    return (f"## As planned\n\nGoals: memory within {MEMORY_OFF:.0%}, time within {TIME_OFF:.0%}.\n\n"
            + table(["setting", "MB planned", "measured", "off", "", "tokens/s planned", "measured", "off", ""],
                    [plan_row(folder, part, row) for part, rows in PLANNED.items() for row in rows]))


def profile_section(folder):
    text = "## Where the time goes\n\n"
    for name, _, what in folder.parts:
        if name.startswith(("profile-", "nsys-")):
            text += f"{what}: {folder.word(name)}\n\n"
            if folder.finished(name):
                lines = [line for line in folder.log(name).splitlines() if not line.startswith("{")]
                text += "```\n" + "\n".join(lines[:90]) + "\n```\n\n"
    return text


def failures_section(folder):
    failed = [name for name, _, _ in folder.parts if folder.state(name) and folder.state(name)[0] not in (0, 77)]
    if not failed:
        return ""
    text = "## Ends of the logs of what failed\n\n"
    for name in failed:
        text += f"{name}: {folder.word(name)}\n\n```\n" + "\n".join(folder.log(name).splitlines()[-25:]) + "\n```\n\n"
    return text


def machine_section(folder):
    facts = dict(line.split(": ", 1) for line in folder.read("machine.txt").splitlines() if ": " in line)
    text = f"# {facts.pop('device', 'unknown device')}\n\n"
    if "shape" in facts:
        text += f"A dry run with {facts.pop('shape')} models: figures and verdicts say nothing but that the script works.\n\n"
    reached = folder.json_line("machine")
    if reached:
        facts["reached by torch " + reached["torch"]] = (f"copies {reached['copy_bytes_per_second'] / 1e12:.2f} TB/s read and written, bf16 "
                                                         f"products {reached['bf16_flops'] / 1e12:.0f} TFLOP/s")
    return text + "".join(f"- {name}: {value}\n" for name, value in facts.items()) + "\n"


def main():
    folder = Folder(sys.argv[1])
    sections = [machine_section, right_section, fast_section, planned_section, profile_section, failures_section, parts_section]
    text = "".join(section(folder) for section in sections)
    target = os.path.join(folder.path, "results.md")
    with open(target + ".partial", "w") as file:
        file.write(text.rstrip() + "\n")
    os.replace(target + ".partial", target)


if __name__ == "__main__":
    main()
