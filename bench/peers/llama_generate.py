"""Greedy generation of llama.cpp on the CPU: prints a line of JSON with the tokens a second after the first one.

    python bench/peers/llama_generate.py FILE.gguf PROMPT TOKENS THREADS

Needs llama-cpp-python (0.3.x) built on this machine, for the instruction set that is compared:

    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" pip install --no-binary llama-cpp-python llama-cpp-python
"""
import json
import sys
import time

from llama_cpp import Llama

path, prompt, count, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = Llama(path, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
ids = model.tokenize(prompt.encode(), add_bos=False)
times = []
for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
    times.append(time.perf_counter())
    if len(times) == count:
        break
print(json.dumps({"tokens_per_second": (len(times) - 1) / (times[-1] - times[0]), "tokens": len(times)}))
