# make interop: if [ -n "$INTEROP_MODEL" ]; then QLORA=$QLORA $PYTHON tests/interop/gguf_answers.py "$INTEROP_MODEL" $WORK; else echo "INTEROP_MODEL names no model"; fi
"""Greedy answers of llama.cpp to the file that `qlora export --format gguf` writes, against those of `qlora generate`.

    QLORA=build/bin/qlora python tests/interop/gguf_answers.py MODEL_OR_RUN FOLDER [--type f32] [--prompt TEXT]...

Both get the prompts as a user's messages: llama.cpp words them by the chat template in the file, puts BOS in front and stops where the
file's metadata say so. Products are float32 in both, so that the answers must be the same letter for letter. Needs llama-cpp-python 0.3.36
(its chat templates need jinja2); without it the script says so.
"""
import argparse
import os
import subprocess
import sys

try:
    from llama_cpp import Llama
except ImportError:
    Llama = None

QLORA = os.environ.get("QLORA", "build/bin/qlora")
PROMPTS = ("What is the capital of Norway?", "Write one sentence about the sea.", "Count from one to five.", "Grüße! Was ist 12 + 3?")
TOKENS = 40


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True, env=os.environ | {"QLORA_INSTRUCTION_SET": "avx2"})
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    return done.stdout


def answer(model, prompt):
    reply = model.create_chat_completion([{"role": "user", "content": prompt}], temperature=0.0, top_k=1, repeat_penalty=1.0,
                                         max_tokens=TOKENS)["choices"][0]
    return reply["message"]["content"], reply["finish_reason"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("folder")
    parser.add_argument("--type", default="f32")
    parser.add_argument("--prompt", action="append")
    arguments = parser.parse_args()
    if Llama is None:
        print("llama-cpp-python 0.3.36 is not installed: no answers are compared")
        return 0
    is_run = os.path.exists(os.path.join(arguments.source, "recipe.resolved.yaml"))
    source = [arguments.source] if is_run else ["--model", arguments.source]
    output = os.path.join(arguments.folder, "gguf")
    print(qlora("export", *source, "--format", "gguf", "--type", arguments.type, "--output", output).splitlines()[-1])
    model = Llama(os.path.join(output, "model.gguf"), n_ctx=512, type_k=0, type_v=0, flash_attn=False, verbose=False)
    others = 0
    for prompt in arguments.prompt or PROMPTS:
        ours = qlora("generate", *source, "--prompt", prompt, "--max-new-tokens", str(TOKENS)).strip()
        theirs, reason = answer(model, prompt)
        same = ours == theirs.strip()
        others += not same
        print(f"{prompt!r}: {'the same' if same else 'OTHER'} answer ({reason}): {ours!r}" + ("" if same else f" and {theirs!r}"))
    return f"{others} answers are others" if others else 0


if __name__ == "__main__":
    sys.exit(main())
