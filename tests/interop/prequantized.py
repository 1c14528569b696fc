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
Needs numpy alone.
"""
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

LOGITS = os.environ.get("QLORA_INTEROP_LOGITS", "build/bin/interop_logits")
LARGEST_SHARE_OF_LOGIT, LARGEST_SHARE_OF_LOSS = 1e-5, 1e-6


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-600:]


def float32_tensors(directory):
    """The tensors of type F32 of a directory's safetensors files, mapped."""
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
            if tensor != "__metadata__" and entry["dtype"] == "F32":
                begin, end = entry["data_offsets"]
                tensors[tensor] = data[begin:end].view("<f4").reshape(entry["shape"])
    return tensors


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
        wrong = [error] if error else wrong_matrices(golden, float32_tensors(decoded))
        wrong_logits, text = compare_logits(directory, golden, rows, folder)
    count = len(golden["linears"])
    equal = "not decoded" if error else f"{count - len(wrong)} of {count} matrices equal"
    return wrong + wrong_logits, f"{equal}, {text}"


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
        if not os.path.exists(path) or not os.path.exists(os.path.join(directory, "config.json")):
            if names:
                sys.exit(f"{directory} must have a config.json and a golden.json")
            continue
        with open(path) as file:
            golden = json.load(file)
        if "linears" not in golden:
            continue
        wrong, text = compare(program, directory, golden, rows)
        compared += 1
        failed += bool(wrong)
        print(f"{'BAD ' if wrong else 'ok  '} {name:26} {text}", *(f"\n      {line}" for line in wrong[:4]), sep="", flush=True)
    print(f"{compared} directories compared, {failed} of them differ")
    sys.exit(failed > 0 or compared == 0)


main()
