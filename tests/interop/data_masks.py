#!/usr/bin/env python3
"""Token ids and loss masks of `qlora inspect data` against transformers, row by row.

The oracle renders with apply_chat_template, tokenizes the whole text once and finds the trained tokens by character
offsets; where the template has {% generation %} tags it also compares with return_assistant_tokens_mask. It knows
nothing of how the program finds its spans.

# make interop: "$PYTHON" tests/interop/data_masks.py --program "$QLORA" --work "$WORK"

Without --tokenizer it trains a small byte-level BPE and writes conversations itself. Real data:

    data_masks.py --program qlora --work DIR --tokenizer HF_DIR --dataset FILE --format chat [--field ours=theirs]...
    data_masks.py --output LINES.jsonl --tokenizer HF_DIR --dataset FILE --format chat    compares what was printed before

--gguf FILE takes tokenizer and template from a GGUF. Ran with transformers 5.23.0, tokenizers of that release.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

from transformers import AutoTokenizer, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "function_call": "assistant", "observation": "tool"}


def rows_of(path, fields):
    text = pathlib.Path(path).read_text()
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    return [{ours: row[theirs] for ours, theirs in fields.items()} | row for row in rows]


def messages_of(row, form):
    if form == "chat":
        return row["messages"]
    if form == "sharegpt":
        return [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    user = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return system + [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]


def end_of_turn(tokenizer, whole, begin):
    """Where the answer ends: behind the last special token, without the white space that follows it."""
    text = whole.rstrip()
    special = [token for token in tokenizer.all_special_tokens if text.endswith(token)]
    return len(text) if special else len(whole)


def encode(tokenizer, text):
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = coded["input_ids"], coded["offset_mapping"]
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and tokenizer("a")["input_ids"][0] == bos
    if adds_bos and (not ids or ids[0] != bos):
        return [bos] + ids, [(0, 0)] + offsets
    return ids, offsets


def mask_of(offsets, spans):
    """A token is trained if its characters lie in a span; None if one crosses a span's edge."""
    mask = []
    for begin, end in offsets:
        inside = [a <= begin and end <= b and end > begin for a, b in spans]
        if any(begin < edge < end for span in spans for edge in span):
            return None
        mask.append(int(any(inside)))
    return mask


def oracle(tokenizer, row, form):
    """(ids, mask) of the row, or None where prompt and answer share a token, which the oracle does not judge."""
    if form == "text":
        ids, _ = encode(tokenizer, row["text"])
        return ids + [tokenizer.eos_token_id], [0] + [1] * len(ids)
    if form == "completion":
        text = row["prompt"] + row["completion"]
        ids, offsets = encode(tokenizer, text)
        mask = mask_of(offsets, [(len(row["prompt"]), len(text))])
        return mask and (ids + [tokenizer.eos_token_id], mask + [1])
    messages = messages_of(row, form)
    tools = row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    render = lambda part, prompt: tokenizer.apply_chat_template(
        part, tokenize=False, add_generation_prompt=prompt, tools=tools or None)
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    text = render(messages[: last + 1], False)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, whole = render(messages[:i], True), render(messages[: i + 1], False)
        assert whole.startswith(prompt) and text.startswith(whole.rstrip()), "the oracle knows plain templates only"
        spans.append((len(prompt), end_of_turn(tokenizer, whole, len(prompt))))
    ids, offsets = encode(tokenizer, text)
    mask = mask_of(offsets, spans)
    if mask is not None and "{% generation %}" in tokenizer.chat_template:
        tagged = tokenizer.apply_chat_template(
            messages[: last + 1], tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        assert tagged["input_ids"] == ids and tagged["assistant_masks"] == mask, "the two oracles disagree"
    return mask and (ids, mask)


def compare(tokenizer, rows, form, lines, sequence_length):
    ours = {}
    for line in lines:
        value = json.loads(line)
        if "example" in value:
            ours.setdefault(value["example"]["row"], []).append(value["example"])
    compared = unjudged = trained = 0
    for index, row in enumerate(rows):
        expected = oracle(tokenizer, row, form)
        if expected is None:
            unjudged += 1
            continue
        if len(expected[0]) > sequence_length:
            assert index not in ours, f"row {index} is too long and was kept"
            continue
        ids, mask = expected
        got = ours.get(index, [])
        assert len(got) == 1, f"row {index}: {len(got)} examples"
        assert got[0]["tokens"] == ids, f"row {index}: ids differ:\n{got[0]['tokens']}\n{ids}"
        assert got[0]["supervised"][1:] == mask[1:], f"row {index}: masks differ"
        compared += 1
        trained += sum(mask)
    assert compared > 0
    print(f"{form}: {compared} rows equal in ids and mask ({trained} trained tokens), {unjudged} not judged")


def run(arguments, tokenizer_path, dataset, form, fields):
    recipe = pathlib.Path(arguments.work) / "recipe.yaml"
    recipe.write_text(json.dumps({  # JSON is YAML
        "model": {"path": str(tokenizer_path)},
        "data": {"train": [{"path": str(dataset), "format": form} | ({"fields": fields} if fields else {})],
                 "sequence_length": arguments.sequence_length, "on_overlength": "drop"},
        "train": {"max_steps": 1},
        "output": {"dir": str(pathlib.Path(arguments.work) / "run")},
    }))
    done = subprocess.run([arguments.program, "inspect", "data", str(recipe), "--json", "--rows", "-1"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments.program} inspect data: {done.stderr}")
    return done.stdout.splitlines()


def small_tokenizer(directory):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text for _ in range(20) for text in TEXTS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>",
                                   additional_special_tokens=special[1:])
    fast.chat_template = CHATML
    fast.save_pretrained(directory)


TEXTS = ["What is the capital of France?", "The capital of France is Paris.\n\n```\nprint(1)\n```", "Zwölf Boxkämpfer, naïve café",
         " leading and trailing ", "数は二つ、三つ。", "1234567890 = 1_234", "A list:\n- one\n- two\n\n\n- three", "🙂🙃 done", "\ttabbed", "ok"]


def small_datasets(directory):
    random.seed(1)
    text = lambda: " ".join(random.choices(TEXTS, k=random.randint(1, 4)))
    chat, alpaca, sharegpt, completion, plain = [], [], [], [], []
    for _ in range(60):
        turns = [{"role": role, "content": text()} for _ in range(random.randint(1, 4)) for role in ("user", "assistant")]
        chat.append({"messages": [{"role": "system", "content": text()}] * random.randint(0, 1) + turns})
        sharegpt.append({"conversations": [{"from": "human" if t["role"] == "user" else "gpt", "value": t["content"]} for t in turns]})
        alpaca.append({"instruction": text(), "input": random.choice(["", text()]), "output": text()})
        completion.append({"prompt": text() + "\nAnswer:", "completion": " " + text()})
        plain.append({"text": text()})
    for form, rows in dict(chat=chat, alpaca=alpaca, sharegpt=sharegpt, completion=completion, text=plain).items():
        path = pathlib.Path(directory) / f"{form}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        yield form, path


def main():
    parser = argparse.ArgumentParser()
    for name in ("program", "work", "tokenizer", "gguf", "dataset", "format", "output", "template"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--sequence-length", type=int, default=4096)
    parser.add_argument("--field", action="append", default=[], help="ours=theirs")
    arguments = parser.parse_args()
    fields = dict(pair.split("=") for pair in arguments.field)
    if not arguments.tokenizer and not arguments.gguf:
        directory = pathlib.Path(arguments.work) / "tokenizer"
        small_tokenizer(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        for form, path in small_datasets(arguments.work):
            compare(tokenizer, rows_of(path, {}), form, run(arguments, directory, path, form, {}), arguments.sequence_length)
        return
    if arguments.gguf:
        path = pathlib.Path(arguments.gguf)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    else:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    if arguments.template:
        tokenizer.chat_template = CHATML if arguments.template == "chatml" else pathlib.Path(arguments.template).read_text()
    source = arguments.gguf or arguments.tokenizer
    lines = (pathlib.Path(arguments.output).read_text().splitlines() if arguments.output
             else run(arguments, source, arguments.dataset, arguments.format, fields))
    compare(tokenizer, rows_of(arguments.dataset, fields), arguments.format, lines, arguments.sequence_length)


if __name__ == "__main__":
    main()
