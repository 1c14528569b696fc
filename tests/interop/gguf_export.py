# make interop: QLORA=$QLORA $PYTHON tests/interop/gguf_export.py $WORK
"""What `qlora export --format gguf` and `gguf-lora` write, read by llama.cpp and by the gguf package.

    QLORA=build/bin/qlora python tests/interop/gguf_export.py FOLDER

A made model is trained for ten steps. Then:
- every file in the gguf package: each key is one that it knows, and says what the model and its tokenizer are; the tensors of the f32 file
  are bit for bit those of the fp32 merged export;
- the tensors of each quantized file: the blocks that llama.cpp's own reference quantizers make of the f32 file's tensors, byte for byte;
- llama.cpp's logits of the f32 file, and of the base with the adapter file, against transformers on the fp32 merged export;
- llama.cpp's tokens of some texts against the source's tokenizer.

The last three need llama-cpp-python 0.3.36; without it the script says so and checks the rest. Ran with gguf 0.19.0, transformers 5.23.0,
torch 2.11.0, llama-cpp-python 0.3.36.
"""
import json
import os
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gguf_golden import library, quantized
from made_model import EOS, VOCABULARY, make_model, make_rows

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

QLORA = os.environ.get("QLORA", "build/bin/qlora")
TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "q5_k_m", "q6_k")
TEXTS = ["plain words", "Ünïcödé — 例 🦙\n\ttabs", " two  spaces ", "12.5 + 3"]
IDS = [(17 * i * i + 3 * i) % 200 for i in range(64)]
FILE_TYPES = {"f32": "ALL_F32"}  # gguf's names; of the others MOSTLY_ and the type
LOGITS = 1e-3  # llama.cpp's exponentials and sums are its own


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def train(folder):
    tiny, run = os.path.join(folder, "tiny"), os.path.join(folder, "run")
    make_model(tiny)
    make_rows(os.path.join(folder, "rows.jsonl"), EOS, VOCABULARY, 40)
    recipe = {"model": {"path": tiny, "dtype": "float32"}, "quantization": {"method": "none"},
              "lora": {"rank": 4, "alpha": 8}, "optim": {"lr": 1e-2},
              "data": {"train": [{"path": os.path.join(folder, "rows.jsonl"), "format": "pretokenized"}]},
              "train": {"max_steps": 10, "compute_dtype": "float32", "device": "cpu"}, "output": {"dir": run}}
    with open(os.path.join(folder, "recipe.yaml"), "w") as file:
        json.dump(recipe, file)
    qlora("train", os.path.join(folder, "recipe.yaml"))
    qlora("export", run, "--format", "merged", "--dtype", "float32", "--output", os.path.join(folder, "merged"))
    for kind in TYPES:
        qlora("export", run, "--format", "gguf", "--type", kind, "--output", os.path.join(folder, kind))
    qlora("export", run, "--format", "gguf-lora", "--output", os.path.join(folder, "lora"))
    qlora("export", "--model", tiny, "--format", "gguf", "--type", "f32", "--output", os.path.join(folder, "base"))
    return tiny


def tensors_of(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def known_keys(architecture):
    found, classes = set(), [gguf.Keys]
    while classes:
        for value in vars(classes.pop()).values():
            if isinstance(value, type):
                classes.append(value)
            elif isinstance(value, str):
                found.add(value.replace("{arch}", architecture))
    return found


def wrong_keys(path, expected):
    """Keys of the file that the gguf package does not know or cannot read, and those of `expected` with another value."""
    found = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items() if not key.startswith("GGUF.")}
    unknown = set(found) - known_keys(found["general.architecture"])
    return sorted(unknown | {key for key, value in expected.items() if found.get(key) != value})


def expected_keys(kind):
    file_type = gguf.LlamaFileType[FILE_TYPES.get(kind, "MOSTLY_" + kind.upper())].value
    return {"general.architecture": "llama", "general.type": "model", "general.file_type": file_type,
            "general.quantization_version": 2 if kind in TYPES[3:] else None, "llama.block_count": 3, "llama.context_length": 256,
            "llama.embedding_length": 128, "llama.feed_forward_length": 256, "llama.attention.head_count": 4,
            "llama.attention.head_count_kv": 2, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.eos_token_id": EOS,
            "tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False,
            "tokenizer.chat_template": None}


def pairs_from_halves(rows, heads):
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def expected_tensors(folder):
    """The merged export under GGUF's names."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    result = {}
    for name, tensor in load_file(os.path.join(folder, "merged", "model.safetensors")).items():
        value = tensor.numpy()
        if ".q_proj." in name or ".k_proj." in name:
            value = pairs_from_halves(value, 4 if ".q_proj." in name else 2)
        result[names.get_name(name, (".weight", ".bias"))] = value
    return result


def llama_logits(path, adapter=None):
    model = llama_cpp.Llama(path, n_ctx=128, n_batch=128, logits_all=True, type_k=0, type_v=0, flash_attn=False, lora_path=adapter,
                            verbose=False)
    model.eval(IDS)
    return torch.tensor(np.array(model.scores[:len(IDS)]))


folder = sys.argv[1]
tiny = train(folder)
bad = []

expected, plain = expected_tensors(folder), tensors_of(os.path.join(folder, "f32", "model.gguf"))
others = [name for name in expected.keys() | plain.keys()
          if name not in expected or name not in plain or not np.array_equal(plain[name].data, expected[name])]
print(f"f32: {len(plain)} tensors, {len(others)} other than the merged export's {' '.join(others)}")
bad += ["f32"] * bool(others)

adapter_keys = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
for name, path, wanted in [(kind, os.path.join(kind, "model.gguf"), expected_keys(kind)) for kind in TYPES] + \
        [("adapter", os.path.join("lora", "adapter.gguf"), adapter_keys)]:
    wrong = wrong_keys(os.path.join(folder, path), wanted)
    print(f"{name}: {len(wrong)} keys that are not as they must be {' '.join(wrong)}")
    bad += ["keys of " + name] * bool(wrong)

if llama_cpp is None:
    print("llama-cpp-python 0.3.36 is not installed: quantized blocks, logits and tokens are not compared with llama.cpp")
    sys.exit(", ".join(bad) if bad else 0)

lib = library()
for kind in TYPES[3:]:
    blocks = wrong = 0
    found = tensors_of(os.path.join(folder, kind, "model.gguf"))
    for name, tensor in found.items():
        if tensor.tensor_type.name in ("F32", "F16"):
            continue
        wanted = quantized(lib, tensor.tensor_type.name, plain[name].data)
        blocks += 1
        wrong += not np.array_equal(np.asarray(tensor.data).reshape(-1), wanted)
    kinds = sorted({tensor.tensor_type.name for tensor in found.values()})
    print(f"{kind}: {blocks} quantized tensors ({', '.join(kinds)}), {wrong} other than llama.cpp's")
    bad += [kind] * (wrong > 0 or blocks == 0)

merged = AutoModelForCausalLM.from_pretrained(os.path.join(folder, "merged")).eval()
base = AutoModelForCausalLM.from_pretrained(tiny).eval()
with torch.no_grad():
    wanted, of_base = (model(torch.tensor([IDS])).logits[0] for model in (merged, base))
adapter = os.path.join(folder, "lora", "adapter.gguf")
for name, path, lora in (("f32 file", "f32", None), ("base and adapter", "base", adapter)):
    difference = (llama_logits(os.path.join(folder, path, "model.gguf"), lora) - wanted).abs().max().item()
    print(f"llama.cpp, {name}: logits within {difference:.1e} of transformers' on the merged export "
          f"(the adapter moves them by {(wanted - of_base).abs().max():.2f})")
    bad += [name] * (difference > LOGITS)
for kind in TYPES[1:]:
    logits = llama_logits(os.path.join(folder, kind, "model.gguf"))
    kl = torch.nn.functional.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean").item()
    print(f"llama.cpp, {kind}: KL to the merged export {kl:.1e}")
    bad += [kind + " in llama.cpp"] * (not kl < 0.5)

reader = llama_cpp.Llama(os.path.join(folder, "f32", "model.gguf"), vocab_only=True, verbose=False)
source = AutoTokenizer.from_pretrained(tiny)
same = all(reader.tokenize(text.encode(), add_bos=False, special=True) == source(text).input_ids for text in TEXTS)
print(f"llama.cpp's tokens: {'the same' if same else 'OTHERS'}")
bad += ["tokens"] * (not same)
sys.exit(", ".join(bad) if bad else 0)
