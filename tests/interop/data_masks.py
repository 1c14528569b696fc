#!/usr/bin/env python3
"""Token ids and loss masks of `qlora inspect data` against transformers, row by row.

The oracle renders with apply_chat_template, tokenizes the whole text once and finds the trained tokens by character
offsets: of a template with {% generation %} blocks those of return_assistant_tokens_mask, of others what each answer's
text has beyond its prompt. It reads rows by a few lines of its own and knows nothing of how the program finds its spans.

# make interop: "$PYTHON" tests/interop/data_masks.py --program "$QLORA" --work "$WORK"

Without --tokenizer it trains a small byte-level BPE and writes conversations itself: plain ones through a ChatML, ones with
tools, thoughts, marks and system messages through a template like Qwen's and one with generation blocks. With --tokenizer and
without --dataset it writes the same conversations for that tokenizer's template, or --template FILE. Real data:

    data_masks.py --program qlora --work DIR --tokenizer HF_DIR --dataset FILE --format chat [--field ours=theirs]...
    data_masks.py --output LINES.jsonl --tokenizer HF_DIR --dataset FILE --format chat    compares what was printed before

--gguf FILE takes tokenizer and template from a GGUF. --vectors tests/data/chat_rows.json --work DIR writes what transformers makes
of the conversations, for tests/data/chat_vectors_test.cpp. Ran with transformers 5.23.0, tokenizers of that release.
"""

import argparse
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys

from transformers import AutoTokenizer, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Tools, calls, results, thoughts: as Qwen's templates write them, in short. The thoughts of earlier answers are left out.
TOOLS = """{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response name="{{ message.name }}">{{ message.content }}</tool_response><|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
GENERATION{% if message.reasoning_content and loop.index0 > ns.last %}<think>{{ message.reasoning_content }}</think>
{% endif %}{{ message.content }}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
ENDGENERATION{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PLAIN_TOOLS = TOOLS.replace("ENDGENERATION", "").replace("GENERATION", "")
MARKED_TOOLS = TOOLS.replace("ENDGENERATION", "{% endgeneration %}").replace("GENERATION", "{% generation %}")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "system": "system", "observation": "tool", "function_response": "tool", "tool": "tool"}
MARKS = ("weight", "train", "training", "trainable", "loss", "loss_mask")


def rows_of(path, fields):
    text = pathlib.Path(path).read_text()
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    return [{ours: row[theirs] for ours, theirs in fields.items()} | row for row in rows]


def parsed(value):
    """JSON that may be written in a string."""
    if not isinstance(value, str):
        return value
    try:
        inside = json.loads(value)
    except ValueError:
        return value
    return inside if isinstance(inside, (dict, list)) else value


def normal_call(call):
    call = parsed(call)
    call = call if "function" in call else {"type": "function", "function": call}
    return call | {"function": call["function"] | {"arguments": parsed(call["function"]["arguments"])}}


def normal_message(message):
    message = {key: value for key, value in message.items() if value is not None or key == "content"}
    if "function_call" in message:
        message["tool_calls"] = [message.pop("function_call")]
    if message.get("tool_calls"):
        message["tool_calls"] = [normal_call(call) for call in parsed(message["tool_calls"])]
    if message["role"] == "function":
        message["role"] = "tool"
    if isinstance(message["content"], list):
        message["content"] = "".join(part["text"] for part in message["content"])
    return message | {"content": message["content"] or ""}


def sharegpt_message(turn):
    more = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if turn["from"] == "function_call":
        calls = parsed(turn["value"])
        return more | {"role": "assistant", "content": "", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return more | {"role": ROLES[turn["from"]], "content": turn["value"]}


def messages_of(row, form, system=""):
    system = row.get("system") or system
    if form == "alpaca":
        user = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]
    elif form == "chat":
        messages = [normal_message(message) for message in parsed(row["messages"])]
    else:
        messages = [normal_message(sharegpt_message(turn)) for turn in row["conversations"]]
    begins = messages[0]["role"] == "system"
    return messages if begins or not system else [{"role": "system", "content": system}] + messages


def is_trained(message):
    return message["role"] == "assistant" and all(message.get(mark, 1) for mark in MARKS) and not message.get("masked")


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


def marked_oracle(tokenizer, render, messages, trained, context):
    """By the template's own generation blocks, one an answer."""
    text = render(messages[: trained[-1] + 1], False)
    coded = tokenizer.apply_chat_template(messages[: trained[-1] + 1], tokenize=True, return_dict=True,
                                          return_assistant_tokens_mask=True, **context)
    ids, mask = coded["input_ids"], list(coded["assistant_masks"])
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assistants = [i for i, message in enumerate(messages[: trained[-1] + 1]) if message["role"] == "assistant"]
    if assistants != trained:  # runs of the mask, one an answer
        runs = [i for i, one in enumerate(mask) if one and (i == 0 or not mask[i - 1])]
        assert len(runs) == len(assistants)
        for begin, index in zip(runs, assistants):
            while index not in trained and begin < len(mask) and mask[begin]:
                mask[begin], begin = 0, begin + 1
    return [(ids, mask)]


def oracle(tokenizer, row, form, options):
    """[(ids, mask)] of the row's examples, or None where prompt and answer share a token, which the oracle does not judge."""
    if form == "text":
        ids, _ = encode(tokenizer, row["text"])
        return [(ids + [tokenizer.eos_token_id], [0] + [1] * len(ids))]
    if form == "completion":
        text = row["prompt"] + row["completion"]
        ids, offsets = encode(tokenizer, text)
        mask = mask_of(offsets, [(len(row["prompt"]), len(text))])
        return mask and [(ids + [tokenizer.eos_token_id], mask + [1])]
    messages = messages_of(row, form, options.get("system", ""))
    tools = parsed(row.get("tools"))
    context = {"tools": [parsed(tool) for tool in tools] if tools else None} | row.get("chat_template_kwargs", {})
    render = lambda part, prompt: tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=prompt, **context)
    if any("tool_calls" in message for message in messages) and "tool_calls" not in tokenizer.chat_template:
        raise ValueError("the template does not write calls")
    trained = [i for i, message in enumerate(messages) if is_trained(message)]
    trained = trained[-1:] if options.get("train_on") == "last" else trained
    if "generation %}" in tokenizer.chat_template:
        return marked_oracle(tokenizer, render, messages, trained, context)
    turns = {}
    for i in trained:
        prompt, whole = render(messages[:i], True), render(messages[: i + 1], False)
        if not whole.startswith(prompt):
            raise ValueError("the template's answers do not begin with its generation prompt")
        turns[i] = (whole, (len(prompt), end_of_turn(tokenizer, whole, len(prompt))))
    examples, done = [], set()
    for i in reversed(trained):  # an answer is trained in the longest text that still has it unchanged
        if i in done:
            continue
        text = turns[i][0]
        stand = [j for j in trained if j <= i and j not in done and text.startswith(turns[j][0][: turns[j][1][1]])]
        done.update(stand)
        ids, offsets = encode(tokenizer, text)
        mask = mask_of(offsets, [turns[j][1] for j in stand])
        if mask is None:
            return None
        examples.append((ids, mask))
    return examples[::-1]


def compare(tokenizer, rows, form, lines, sequence_length, options={}, name=""):
    ours = {}
    for line in lines:
        value = json.loads(line)
        if "example" in value:
            ours.setdefault(value["example"]["row"], []).append(value["example"])
    compared = unjudged = trained = 0
    for index, row in enumerate(rows):
        expected = oracle(tokenizer, row, form, options)
        if expected is None:
            unjudged += 1
            continue
        expected = [(ids, mask) for ids, mask in expected if len(ids) <= sequence_length]
        got = ours.get(index, [])
        assert len(got) == len(expected), f"row {index}: {len(got)} examples, {len(expected)} expected"
        for example, (ids, mask) in zip(got, expected):
            assert example["tokens"] == ids, f"row {index}: ids differ:\n{tokenizer.decode(example['tokens'])}\n{tokenizer.decode(ids)}"
            assert example["supervised"][1:] == mask[1:], f"row {index}: masks differ:\n{example['supervised']}\n{mask}"
            trained += sum(mask[1:])
        compared += 1
    assert compared + unjudged > 0
    print(f"{name or form}: {compared} rows equal in ids and mask ({trained} trained tokens), {unjudged} not judged")


def model_directory(arguments, source):
    """What the program takes as a model: a directory of a tokenizer alone gets a config.json, in a copy."""
    source = pathlib.Path(source)
    if not source.is_dir() or (source / "config.json").exists():
        return source
    copy = pathlib.Path(arguments.work) / ("model_of_" + source.name)
    shutil.copytree(source, copy, dirs_exist_ok=True)
    (copy / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 262144, "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6}))
    return copy


def run(arguments, tokenizer_path, dataset, form, fields, options={}):
    """The lines of `qlora inspect data` of a file of rows, or of a list of files as one data set each."""
    recipe = pathlib.Path(arguments.work) / "recipe.yaml"
    more = ({"fields": fields} if fields else {}) | ({"system": options["system"]} if "system" in options else {})
    rows = [{"path": str(path), "format": form} | more for path in (dataset if isinstance(dataset, list) else [dataset])]
    data = {key: options[key] for key in ("train_on", "chat_template") if key in options}
    recipe.write_text(json.dumps({  # JSON is YAML
        "model": {"path": str(model_directory(arguments, tokenizer_path).resolve())},
        "data": data | {"train": rows, "sequence_length": arguments.sequence_length, "on_overlength": "drop"},
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


WEATHER = {"type": "function", "function": {"name": "weather", "description": "Weather of a city, in °C", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}


def tool_rows():
    """Rows of chat and of sharegpt: every way to write a call, its result and its tools; thoughts, marks, system messages."""
    random.seed(2)
    text = lambda: " ".join(random.choices(TEXTS, k=random.randint(1, 3)))
    user, answer = lambda: {"role": "user", "content": text()}, lambda **more: {"role": "assistant", "content": text(), **more}
    arguments = {"city": "Zürich", "days": 2}
    openai = lambda given: {"tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": given}}]}
    result = {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": '{"t": 21.5}'}
    calls = [openai(arguments), openai(json.dumps(arguments)), openai("{}"), {"tool_calls": json.dumps(openai(arguments)["tool_calls"])},
             {"tool_calls": [{"name": "weather", "arguments": arguments}]}]
    chat = []
    for call in calls:
        for content in ("", None, "Let me look."):
            row = [user(), {"role": "assistant", "content": content, **call}, result, answer(), user(), answer(weight=random.randint(0, 1))]
            chat.append({"messages": row, "tools": random.choice([[WEATHER], json.dumps([WEATHER]), [json.dumps(WEATHER)]])})
    chat.append({"messages": [user(), {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": json.dumps(arguments)}},
                              {"role": "function", "name": "weather", "content": "21"}, answer()], "tools": [WEATHER]})
    for mark in ({"weight": 0}, {"weight": 1}, {"train": False}, {"train": True}, {"weight": None}, {"masked": True}):
        chat.append({"system": random.choice(["", "Be brief.", None]), "messages": [user(), answer(**mark), user(), answer(), user()]})
    chat.append({"messages": json.dumps([{"role": "system", "content": "Own."}, user(), answer()])})
    chat.append({"messages": [user(), answer(reasoning_content="Hm."), user(), answer(thinking="So."), user(), answer(reasoning="Well.")]})
    chat.append({"messages": [{"role": "user", "content": [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]}, answer()]})
    chat = [{key: value for key, value in row.items() if value is not None} for row in chat]
    sharegpt = []
    for asked, answered in (("function_call", "observation"), ("function_call", "function_response"), ("function_call", "tool")):
        for value in (json.dumps({"name": "weather", "arguments": arguments}), json.dumps([{"name": "weather", "arguments": json.dumps(arguments)}])):
            turns = [{"from": "human", "value": text()}, {"from": asked, "value": value}, {"from": answered, "value": "21", "name": "weather"},
                     {"from": "gpt", "value": text()}, {"from": "human", "value": text()}, {"from": "gpt", "value": text(), "train": random.random() < 0.5}]
            sharegpt.append({"conversations": turns, "tools": json.dumps([WEATHER]), "system": random.choice(["", "Be brief."])})
    return {"chat": chat, "sharegpt": sharegpt}


def tokenizer_for(arguments, directory, template):
    """A tokenizer that has the template's control tokens, whatever model these are of, and its directory."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    if template is None:
        return tokenizer, directory
    tokenizer.chat_template = template
    written = sorted(set(re.findall(r"<\|[a-z_]+\|>|\[/?[A-Z_]+\]|</?s>", template)) - set(tokenizer.all_special_tokens))
    tokenizer.add_special_tokens({"additional_special_tokens": written}, replace_extra_special_tokens=False)
    copy = pathlib.Path(arguments.work) / "tokenizer_for_template"
    shutil.rmtree(copy, ignore_errors=True)
    tokenizer.save_pretrained(copy)
    return AutoTokenizer.from_pretrained(copy), copy


def byte_tokenizer(directory):
    """An id a byte, and three control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["</s>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], additional_special_tokens=special[1:]).save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


def write_vectors(arguments):
    """What transformers makes of each kind of tool_rows(): the text of each example, and its trained spans joined with "|"."""
    tokenizer = byte_tokenizer(pathlib.Path(arguments.work) / "byte_tokenizer")
    rows = [{"format": form, "row": row} for form, all_rows in tool_rows().items() for row in (all_rows[::3] if form == "sharegpt" else all_rows[:15:3] + all_rows[15:])]
    texts = {}
    spans = lambda ids, mask: "|".join(tokenizer.decode([ids[i] for i in run]) for run in runs_of(mask))
    for name, template, options in (("plain", PLAIN_TOOLS, {}), ("last", PLAIN_TOOLS, {"train_on": "last"}), ("system", PLAIN_TOOLS, {"system": "From the recipe."}),
                                    ("marked", MARKED_TOOLS, {}), ("marked_last", MARKED_TOOLS, {"train_on": "last"})):
        tokenizer.chat_template = template
        for i, row in enumerate(rows):
            examples = oracle(tokenizer, row["row"], row["format"], options)
            known = [texts.setdefault(tokenizer.decode(ids), len(texts)) for ids, _ in examples]
            row[name] = [[text, spans(ids, mask)] for text, (ids, mask) in zip(known, examples)]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    head = {"made_by": "tests/interop/data_masks.py --vectors, transformers 5.23.0", "plain": PLAIN_TOOLS, "marked": MARKED_TOOLS, "texts": list(texts)}
    pathlib.Path(arguments.vectors).write_text(json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n]}\n")


def runs_of(mask):
    runs, previous = [], 0
    for i, one in enumerate(mask):
        if one and not previous:
            runs.append([])
        if one:
            runs[-1].append(i)
        previous = one
    return runs


def check_tools(arguments, directory, name, template):
    """All of tool_rows() through a template, each way of training; rows that the template itself refuses are left out."""
    tokenizer, directory = tokenizer_for(arguments, directory, template)
    file = pathlib.Path(arguments.work) / "template.jinja"
    file.write_text(tokenizer.chat_template)
    for form, rows in tool_rows().items():
        for options in ({}, {"train_on": "last"}, {"system": "From the recipe."}):
            taken = []
            for row in rows:
                try:
                    oracle(tokenizer, row, form, options)
                    taken.append(row)
                except Exception as error:  # a template's own
                    assert not isinstance(error, AssertionError), error
            if not taken:
                continue
            path = pathlib.Path(arguments.work) / f"{form}_tools.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in taken))
            lines = run(arguments, directory, path, form, {}, options | {"chat_template": str(file)})
            compare(tokenizer, taken, form, lines, arguments.sequence_length, options, f"{name}, {form} with tools {options or ''}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("program", "work", "tokenizer", "gguf", "dataset", "format", "output", "template", "vectors"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--sequence-length", type=int, default=4096)
    parser.add_argument("--field", action="append", default=[], help="ours=theirs")
    arguments = parser.parse_args()
    fields = dict(pair.split("=") for pair in arguments.field)
    if arguments.vectors:
        return write_vectors(arguments)
    if not arguments.tokenizer and not arguments.gguf:
        directory = pathlib.Path(arguments.work) / "tokenizer"
        small_tokenizer(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        for form, path in small_datasets(arguments.work):
            compare(tokenizer, rows_of(path, {}), form, run(arguments, directory, path, form, {}), arguments.sequence_length)
        check_tools(arguments, directory, "like Qwen", PLAIN_TOOLS)
        check_tools(arguments, directory, "generation blocks", MARKED_TOOLS)
        return
    if not arguments.dataset and not arguments.gguf:
        template = pathlib.Path(arguments.template).read_text() if arguments.template else None
        check_tools(arguments, arguments.tokenizer, arguments.template or arguments.tokenizer, template)
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
