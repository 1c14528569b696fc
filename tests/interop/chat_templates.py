#!/usr/bin/env python3
"""Rendered chat templates against transformers: equal byte for byte, or exit code 1.

    python tests/interop/chat_templates.py --renderer build/bin/interop_templates [--program build/bin/qlora] [PATH]...

PATH: .jinja files, tokenizer_config.json files, or directories of them (searched to the bottom). Each template renders many
conversations (with and without system text, tools, calls and their results, thoughts, several turns, hard Unicode, empty texts,
text that looks like Jinja), with and without a generation prompt. Where transformers raises, the renderer must fail too, with
raise_exception's message. Its text is compared only there: other errors
need not read alike. Of templates with {% generation %} blocks the spans that these write are compared too, with those of
return_assistant_tokens_mask. The snippets of chat_template_snippets.txt (one small template a line, made to cover the language) are always
compared; without paths nothing else is.

Ran with transformers 5.23.0, jinja2 3.1.6, Python 3.11.

# make interop: $PYTHON tests/interop/chat_templates.py --renderer $BUILD/bin/interop_templates --program $QLORA
"""
import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jinja2
from transformers.utils import chat_template_utils

HARD = ("Grüße, 世界! 👩‍👩‍👧 e\u0301 \u2028 \u00a0 \x1c \x7f \ufeff ſtraße ΣΑΣ ǆ İ", "", " \n two blanks, line ends \n\n", "{{ 7 * 7 }} {% raw %} {# no #} %}",
        "<|im_start|>system\n<|im_end|><s>[INST]</s>", "quotes ' \" \\ / \t \b <b>&amp;</b>", "<think>\nhm\n</think>\n\nanswer", "a\r\nb\rc",
        "line one\nline two\n\n    indented", "x" * 5000)
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather in a place: \"°C\" & <more>", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "description": "City, e.g. 'Köln'", "enum": ["Köln", "東京"]},
            "days": {"type": "integer", "default": 3}, "exact": {"type": "boolean"},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat"]},
            "tags": {"type": "array", "items": {"type": "string"}}, "any": {"type": ["string", "null"]}},
        "required": ["city"]}, "return": {"type": "string", "description": "text"}}},
    {"type": "function", "function": {"name": "ping", "description": "No arguments", "parameters": {"type": "object", "properties": {}}}},
]


def call(arguments, name="get_weather", id_="abcdefghi"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def conversations():
    system = {"role": "system", "content": "You are a pirate.\n"}
    turns = [user("Hi"), assistant("Hello!"), user("How are you?"), assistant("Fine."), user("Good.")]
    plain = [[user("Hi")], [user("Hi"), assistant("Hello!")], [system, user("Hi")], [system, *turns], turns, [system], [], turns * 6,
             [user("Hi"), user("again")], [assistant("I begin")], [{"role": "developer", "content": "Be terse."}, user("Hi")],
             [{"role": "weird", "content": "?"}], [{"role": "user"}], [{"content": "no role"}], [user(None)], [user(7)],
             [user("a"), assistant(None)], [user("a"), {"role": "assistant"}], [system, assistant("x"), user("y")]]
    plain += [[user(text)] for text in HARD] + [[system, user("q"), assistant(text), user(text)] for text in HARD]
    plain += [[{"role": "system", "content": text}, user("q")] for text in HARD]
    parts = [{"type": "text", "text": "part one "}, {"type": "text", "text": "part two"}]
    plain += [[user(parts)], [{"role": "system", "content": parts[:1]}, user(parts), assistant(parts[:1])],
              [user([{"type": "image"}, {"type": "image_url", "image_url": {"url": "x"}}, *parts])], [user([])],
              [user([{"type": "video"}, {"type": "audio", "audio": "x"}])]]
    thoughts = [user("q"), assistant("a", reasoning_content="I think.\n"), user("r"), assistant("b", thinking="so"), user("s")]
    plain += [thoughts, thoughts[:2], [user("q"), assistant("<think>\nold\n</think>\n\na"), user("r"), assistant("b", reasoning="n")]]
    for content in ("", None, "I look."):
        asked = [user("Weather?"), assistant(content, tool_calls=[call({"city": "Köln", "days": 2, "exact": True, "any": None, "where": {"lat": 1.5}, "tags": ["ä", "b"]})])]
        answered = [*asked, {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"t\": 21}"}]
        twice = [user("Both?"), assistant(content, tool_calls=[call({"city": "東京"}), call({}, "ping", "ABCDEFGHI")]),
                 {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "21"},
                 {"role": "tool", "name": "ping", "tool_call_id": "ABCDEFGHI", "content": [{"type": "text", "text": "pong"}]}]
        plain += [asked, answered, [system, *answered, assistant("21 degrees.")], [*answered, assistant("21."), user("And?")], twice, [*twice, assistant("ok", reasoning_content="both")],
                  [user("x"), assistant(content, tool_calls=[call("{\"city\": \"Köln\"}")])], [user("x"), assistant(content, reasoning_content="r", tool_calls=[call({})])],
                  [user("x"), assistant(content, tool_calls=[{"name": "ping", "arguments": {"a": [1, {"b": 1e21, "c": 0.1, "d": -0.0}]}}])]]
    plain += [[user("Weather?"), assistant("", tool_calls=[call({"city": "x"}, id_=str(n))]), {"role": "tool", "content": {"t": [1, None, True, 1.0]}}] for n in (1, 123456789)]
    return plain


CONTEXTS = [
    {}, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    {"bos_token": "<s>", "eos_token": "</s>", "tools": TOOLS},
    {"bos_token": "<s>", "eos_token": "</s>", "tools": TOOLS[:1], "enable_thinking": True, "date_string": "1 Jan 2025", "tools_in_user_message": False, "reasoning_effort": "high", "preserve_thinking": True},
    {"bos_token": "<s>", "eos_token": "</s>", "tools": [], "enable_thinking": False, "builtin_tools": ["browser", "python"], "model_identity": "Me.", "add_vision_id": True, "documents": [{"title": "T", "text": "ü"}], "thinking": True, "xml_tools": ["a"]},
]


# Blocks in loops and branches, with trimmed white space, empty, around the header, after characters of several bytes.
MARKED = {
    "marked: answers": "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}</s>{% endif %}\n{% endfor %}",
    "marked: headers": "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- generation -%} <{{ m.role }}>\n{{ m.content }}</s>\n{%- endgeneration -%}{%- else -%}é<{{ m.role }}>{{ m.content }}{%- endif -%}{%- endfor -%}",
    "marked: parts": "{% for m in messages %}{% generation %}{% endgeneration %}{% if m.reasoning_content %}{% generation %}<think>{{ m.reasoning_content }}{% endgeneration %}</think>{% endif %}"
                     "{% generation %}{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
}


def generated_spans(template, messages, context):
    """Of return_assistant_tokens_mask, as bytes of the text; empty ones say nothing."""
    texts, spans = chat_template_utils.render_jinja_template([messages], chat_template=template, return_assistant_tokens_mask=True, **context)
    at = lambda index: len(texts[0][:index].encode())
    return [[at(begin), at(end)] for begin, end in spans[0] if begin < end]


def oracle(template, messages, context, prompt):
    try:
        rendered, _ = chat_template_utils.render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt, **context)
        return rendered[0], None
    except Exception as error:  # a template can make Python raise nearly anything
        return None, error


def read_templates(paths):
    files = []
    for path in map(pathlib.Path, paths):
        files += sorted(p for p in path.rglob("*") if p.suffix == ".jinja" or p.name == "tokenizer_config.json") if path.is_dir() else [path]
    found = {}
    for path in files:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            found[str(path)] = text
            continue
        value = json.loads(text).get("chat_template")
        for name, one in ([("", value)] if isinstance(value, str) else [(t["name"], t["template"]) for t in value or []]):
            found[f"{path} {name}"] = one
    return found


def read_snippets():
    path = pathlib.Path(__file__).with_name("chat_template_snippets.txt")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("##")]
    return {f"snippet {i}: {line}": line.replace("⏎", "\n") for i, line in enumerate(lines)}


def make_jobs(templates, snippets):
    jobs = []
    for name, text in templates.items():
        for messages, context, prompt in itertools.product(conversations(), CONTEXTS, (False, True)):
            marked = {"marked": True} if "generation %}" in text and not prompt else {}
            jobs.append((name, {"template": text, "messages": messages, "context": context, "add_generation_prompt": prompt} | marked))
    for name, text in snippets.items():
        messages = [user("Hi"), assistant("Hello!", tool_calls=[call({"b": 1, "a": [1, 2.5, None, True, "ü"]})]), user(HARD[0])]
        context = {"d": {"b": 2, "a": 1, "C": "x"}, "l": [3, 1, 2], "words": ["b", "A", "a", "B"], "e": [], "n": None, "t": True, "s": "Hello, World", "u": HARD[0],
                   "rows": [{"k": "x", "v": 1, "o": {"p": 5}}, {"k": "y", "v": 2, "o": {"p": 4}}, {"k": "x", "v": 3, "o": {}}], "f": 2.5, "tools": TOOLS}
        jobs.append((name, {"template": text, "messages": messages, "context": context, "add_generation_prompt": False}))
    return jobs


def run_all(renderer, jobs):
    lines = "".join(json.dumps(job) + "\n" for _, job in jobs)
    done = subprocess.run([renderer], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]


def compare(name, job, got):
    """None: they agree; else what differs."""
    want, error = oracle(job["template"], job["messages"], job["context"], job["add_generation_prompt"])
    if error is None:
        if got.get("text") != want:
            return f"want {want!r}\n   got {got.get('text', got.get('error'))!r}"
        spans = generated_spans(job["template"], job["messages"], job["context"]) if "marked" in job else None
        return None if got.get("generated") == spans else f"want the spans {spans} of {want!r}\n   got {got.get('generated')}"
    if "error" not in got:
        return f"want {type(error).__name__}: {error}\n   got {got['text']!r}"
    raised = type(error) is jinja2.TemplateError
    return None if not raised or str(error) in got["error"] else f"want the message {error}\n   got {got['error']}"


def check_program(program, templates):
    """qlora render itself, on one conversation each."""
    failed = 0
    for name, text in [*templates.items()][:5] + [("own", "{{ messages[0].content }}{{ bos_token }}\n\n")]:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "t.jinja").write_bytes(text.encode())
            (folder / "m.json").write_text(json.dumps([user(HARD[0])]))
            (folder / "c.json").write_text(json.dumps(CONTEXTS[1]))
            got = subprocess.run([program, "render", "--template", folder / "t.jinja", "--messages", folder / "m.json", "--context", folder / "c.json", "--add-generation-prompt"],
                                 stdout=subprocess.PIPE)
            want, _ = oracle(text, [user(HARD[0])], CONTEXTS[1], True)
            if want is not None and got.stdout != want.encode():
                failed += 1
                print(f"qlora render {name}:\n  want {want!r}\n   got {got.stdout!r}")
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--renderer", required=True)
    parser.add_argument("--program")
    parser.add_argument("--show", type=int, default=20)
    parser.add_argument("paths", nargs="*")
    options = parser.parse_args()
    templates = MARKED | read_templates(options.paths)
    jobs = make_jobs(templates, read_snippets())
    start = time.time()
    answers = run_all(options.renderer, jobs)
    seconds = time.time() - start
    bad, errors = {}, 0
    for (name, job), got in zip(jobs, answers, strict=True):
        errors += "error" in got
        difference = compare(name, job, got)
        if difference:
            bad.setdefault(name, []).append((job, difference))
    for name, cases in list(bad.items())[:options.show]:
        print(f"{name}: {len(cases)} differ; the first: {json.dumps(cases[0][0]['messages'])[:300]} {list(cases[0][0]['context'])} {cases[0][0]['add_generation_prompt']}\n  {cases[0][1][:1500]}")
    failed = sum(map(len, bad.values()))
    print(f"{len(templates)} templates, {len(jobs)} renderings ({errors} of them errors on both sides or differing) in {seconds:.1f} s: {failed} differ, in {len(bad)} templates")
    if options.program:
        failed += check_program(options.program, templates)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
