# make interop: if [ -n "${INTEROP_PREQUANTIZED:-}" ]; then QLORA_INTEROP_LOGITS=$BUILD/bin/interop_logits $PYTHON tests/interop/prequantized.py "$INTEROP_PREQUANTIZED" "$QLORA"; else echo "INTEROP_PREQUANTIZED names no folder of directories"; fi
"""Directories that GPTQModel, AutoGPTQ, hqq, aqlm, compressed-tensors, torchao, ... quantized, against what these tools made of them.

    QLORA_INTEROP_LOGITS=build/bin/interop_logits python tests/interop/prequantized.py FOLDER PROGRAM [NAME...]

FOLDER holds directories, each with a golden.json, and rows.jsonl, rows of token ids. golden.json has, of the tool's own functions:

    linears   by module: shape, sha256_fp32 of the matrix decoded in float32 ([out, in], row-major, little-endian), first8 = W[0, :8],
              mid8 = W[out / 2, in / 2 : in / 2 + 8], last8 = W[-1, -8:]
    nll, logits_row0_last, logits_row0_every_8th_position_64th_id
              by transformers in float32 over these matrices: the sum over a row's predictions; logits of the first row

Each directory, or those named, goes through `PROGRAM dequantize --dtype float32`; every matrix must have the hash. Then the program's
logits on the rows, as stored and in float32, must be within 1e-5 of transformers', as a share of the largest (absolutely where that is
below 1), and the losses of a row within 1e-6 of their sum.
A directory with mxfp4.safetensors holds a stack of MXFP4 experts and what transformers decodes it to, both [experts, inputs, outputs]. The
stack goes into a small gpt-oss, whose file then goes through `PROGRAM dequantize`: every number must be the same.
Needs numpy alone.
"""
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np

LOGITS = os.environ.get("QLORA_INTEROP_LOGITS", "build/bin/interop_logits")
LARGEST_SHARE_OF_LOGIT, LARGEST_SHARE_OF_LOSS = 1e-5, 1e-6
TYPES = {"F32": "<f4", "U8": "u1"}
MXFP4, STACK = "mxfp4.safetensors", "model.layers.0.mlp.experts.gate_up_proj"


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-600:]


def tensors_of(directory, *types):
    """The tensors of these types of a directory's safetensors files, mapped."""
    tensors = {}
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".safetensors"):
            continue
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(size))
        data = np.memmap(path, np.uint8, "r", 8 + size)
        for tensor, entry in header.items():
            if tensor != "__metadata__" and entry["dtype"] in types:
                begin, end = entry["data_offsets"]
                tensors[tensor] = data[begin:end].view(TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    header, begin = {}, 0
    for name, tensor in tensors.items():
        kind = "U8" if tensor.dtype == np.uint8 else "F32"
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, begin + tensor.nbytes]}
        begin += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes())


def wrong_matrices(golden, tensors):
    wrong = []
    for module, expected in golden["linears"].items():
        matrix = tensors.get(module + ".weight")
        if matrix is None:
            wrong.append(f"{module}: no float32 matrix")
        elif list(matrix.shape) != expected["shape"]:
            wrong.append(f"{module}: {list(matrix.shape)} instead of {expected['shape']}")
        elif hashlib.sha256(np.ascontiguousarray(matrix).tobytes()).hexdigest() != expected["sha256_fp32"]:
            out, inputs = matrix.shape
            seen = np.concatenate([matrix[0, :8], matrix[out // 2, inputs // 2 : inputs // 2 + 8], matrix[-1, -8:]])
            places = np.array(expected["first8"] + expected["mid8"] + expected["last8"], np.float32)
            wrong.append(f"{module}: another hash; at 24 places the largest difference is {np.abs(seen - places).max():.2e}")
    return wrong


def losses_of(logits, rows):
    """The sum over the predictions of each row."""
    sums, begin = [], 0
    for row in rows:
        scores = logits[begin : begin + len(row) - 1].astype(np.float64)
        largest = scores.max(axis=1, keepdims=True)
        normalizer = np.log(np.exp(scores - largest).sum(axis=1)) + largest[:, 0]
        sums.append(float((normalizer - scores[np.arange(len(row) - 1), row[1:]]).sum()))
        begin += len(row)
    return np.array(sums)


def compare_logits(directory, golden, rows, folder):
    tokens, output = os.path.join(folder, "tokens.bin"), os.path.join(folder, "logits.bin")
    np.concatenate(rows).astype(np.int32).tofile(tokens)
    error = run(LOGITS, directory, "-", "as_stored", "float32", tokens, output, *(str(len(row)) for row in rows))
    if error:
        return [error], "no logits"
    logits = np.fromfile(output, np.float32).reshape(sum(map(len, rows)), -1)
    first = logits[: len(rows[0])]
    pairs = [(first[-1], golden["logits_row0_last"]), (first[::8, ::64], golden["logits_row0_every_8th_position_64th_id"])]
    wanted = [np.array(values, np.float32) for _, values in pairs]
    of_logits = max(float(np.abs(found - values).max()) for (found, _), values in zip(pairs, wanted))
    largest = max(float(np.abs(values).max()) for values in wanted)
    sums = np.array(golden["nll"])
    of_losses = np.abs(losses_of(logits, rows) - sums)
    text = f"logits differ by {of_logits:.1e} of {largest:.1f}, sums of losses by {of_losses.max():.1e} of {sums.max():.0f}"
    good = of_logits <= LARGEST_SHARE_OF_LOGIT * max(largest, 1) and bool((of_losses <= LARGEST_SHARE_OF_LOSS * sums).all())
    return ([] if good else [text]), text


def compare(program, directory, golden, rows):
    with tempfile.TemporaryDirectory() as folder:
        decoded = os.path.join(folder, "decoded")
        error = run(program, "dequantize", "--model", directory, "--output", decoded, "--dtype", "float32")
        wrong = [error] if error else wrong_matrices(golden, tensors_of(decoded, "F32"))
        wrong_logits, text = compare_logits(directory, golden, rows, folder)
    count = len(golden["linears"])
    equal = "not decoded" if error else f"{count - len(wrong)} of {count} matrices equal"
    return wrong + wrong_logits, f"{equal}, {text}"


def write_gpt_oss(directory, stored, quantization):
    """A gpt-oss of one layer around the stack of experts; the other tensors are float32."""
    experts, outputs, blocks = stored[STACK + "_scales"].shape
    hidden, inner, heads, size, vocabulary = 32 * blocks, outputs // 2, 2, 16, 512
    generator = np.random.default_rng(1)

    def made(*shape):
        return generator.normal(0, 0.1, shape).astype(np.float32)

    layer = "model.layers.0."
    tensors = {"model.embed_tokens.weight": made(vocabulary, hidden), "lm_head.weight": made(vocabulary, hidden),
               "model.norm.weight": made(hidden), layer + "input_layernorm.weight": made(hidden),
               layer + "post_attention_layernorm.weight": made(hidden), layer + "self_attn.sinks": made(heads),
               layer + "mlp.router.weight": made(experts, hidden), layer + "mlp.router.bias": made(experts),
               layer + "mlp.experts.gate_up_proj_bias": made(experts, outputs),
               layer + "mlp.experts.down_proj": made(experts, inner, hidden), layer + "mlp.experts.down_proj_bias": made(experts, hidden)}
    for name, out, inputs in [(name, heads * size, hidden) for name in "qkv"] + [("o", hidden, heads * size)]:
        tensors |= {f"{layer}self_attn.{name}_proj.weight": made(out, inputs), f"{layer}self_attn.{name}_proj.bias": made(out)}
    os.makedirs(directory)
    write_tensors(os.path.join(directory, "model.safetensors"), tensors | stored)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump({"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "vocab_size": vocabulary, "hidden_size": hidden,
                   "intermediate_size": inner, "head_dim": size, "num_attention_heads": heads, "num_key_value_heads": heads,
                   "num_hidden_layers": 1, "num_local_experts": experts, "num_experts_per_tok": 1, "tie_word_embeddings": False}
                  | quantization, file)


def copy_tokenizer(folder, directory):
    """Of any directory beside."""
    for name in sorted(os.listdir(folder)):
        files = [os.path.join(folder, name, file) for file in ("tokenizer.model", "tokenizer_config.json")]
        if all(map(os.path.exists, files)):
            return [shutil.copy(file, directory) for file in files]
    sys.exit(f"{folder} has no directory with a tokenizer.model")


def compare_mxfp4(program, folder, directory, golden):
    stored = {name: np.array(tensor) for name, tensor in tensors_of(directory, "F32", "U8").items()}
    wanted = stored.pop("decoded_fp32_E_in_out")
    with tempfile.TemporaryDirectory() as work:
        model, decoded = os.path.join(work, "model"), os.path.join(work, "decoded")
        write_gpt_oss(model, stored, golden["config"])
        copy_tokenizer(folder, model)
        error = run(program, "dequantize", "--model", model, "--output", decoded, "--dtype", "float32")
        if error:
            return [error], "not decoded"
        found = np.array(tensors_of(decoded, "F32")[STACK])
    if found.shape != wanted.shape:
        return [f"{STACK}: {found.shape} instead of {wanted.shape}"], "another shape"
    differing = int((found != wanted).sum())
    row = np.array(golden["first_row_of_expert_0"], np.float32)
    text = f"{wanted.size - differing} of {wanted.size} numbers of {len(wanted)} experts equal"
    good = differing == 0 and np.array_equal(found[0, : len(row), 0], row)
    return ([] if good else [text]), text


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, program, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(os.path.join(folder, "rows.jsonl")) as file:
        rows = [np.array(json.loads(line)["input_ids"]) for line in file if line.strip()]
    compared = failed = 0
    for name in names or sorted(os.listdir(folder)):
        directory = os.path.join(folder, name)
        path = os.path.join(directory, "golden.json")
        is_mxfp4 = os.path.exists(os.path.join(directory, MXFP4))
        if not os.path.exists(path) or not (is_mxfp4 or os.path.exists(os.path.join(directory, "config.json"))):
            if names:
                sys.exit(f"{directory} must have a golden.json, and a config.json or {MXFP4}")
            continue
        with open(path) as file:
            golden = json.load(file)
        if is_mxfp4:
            wrong, text = compare_mxfp4(program, folder, directory, golden)
        elif "linears" in golden:
            wrong, text = compare(program, directory, golden, rows)
        else:
            continue
        compared += 1
        failed += bool(wrong)
        print(f"{'BAD ' if wrong else 'ok  '} {name:26} {text}", *(f"\n      {line}" for line in wrong[:4]), sep="", flush=True)
    print(f"{compared} directories compared, {failed} of them differ")
    sys.exit(failed > 0 or compared == 0)


main()
