#!/usr/bin/env python3
# make interop: "$PYTHON" tests/interop/io_files.py "$BUILD/bin/interop_files" "$WORK"
"""GGUF and safetensors files and GGUF's block formats against the packages gguf and safetensors, bit for bit.

    python tests/interop/io_files.py INTEROP_FILES WORK_FOLDER [--model FILE.gguf]

Random blocks of every type that we decode (with tame and with arbitrary scales, so also infinities and NaN, which are
compared as NaN), a GGUF and a safetensors file that the packages write and we copy and they read again; with --model
every tensor of that file, and a copy of it.

Ran with gguf 0.19.0, safetensors 0.8.0, numpy 2.4.6, Python 3.11.
"""
import argparse
import os
import subprocess
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors import safe_open
from safetensors.numpy import save_file

TYPES = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.MXFP4, T.F16, T.BF16, T.F32]
# Where the fp16 fields of a block lie.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.MXFP4: []}
failures = 0


def report(what, differing, of):
    global failures
    failures += differing != 0
    print(f"{what:40} {differing} of {of} differ")


def bits_differing(ours, theirs):
    ours, theirs = ours.reshape(-1), np.ascontiguousarray(theirs, dtype=np.float32).reshape(-1)
    if ours.size != theirs.size:
        return max(ours.size, theirs.size)
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    return int((~same).sum())


def random_blocks(random, kind, count, tame):
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES.get(kind, []) if tame else []:
        halves = random.normal(0, 0.05, count).astype(np.float16)
        blocks[:, at:at + 2] = halves.view(np.uint8).reshape(count, 2)
    return blocks


def check_blocks(program, work):
    random = np.random.default_rng(1)
    for kind in TYPES:
        for tame in (True, False):
            blocks = random_blocks(random, kind, 40000 if kind in HALVES else 400000, tame)
            blocks.tofile(f"{work}/blocks")
            subprocess.run([program, "dequantize", kind.name, f"{work}/blocks", f"{work}/values"], check=True)
            with np.errstate(all="ignore"):
                theirs = gguf.quants.dequantize(blocks, kind)
            ours = np.fromfile(f"{work}/values", np.float32)
            report(f"{kind.name} {'tame' if tame else 'any'} blocks", bits_differing(ours, theirs), ours.size)


def check_model(program, work, path):
    reader = gguf.GGUFReader(path)
    out = subprocess.run([program, "gguf_tensors", path, work], check=True, stdout=subprocess.PIPE, text=True)
    names = out.stdout.split("\n")[:-1]
    report("tensor names", sum(a != b.name for a, b in zip(names, reader.tensors)) +
           abs(len(names) - len(reader.tensors)), len(reader.tensors))
    by_kind = {}
    for index, tensor in enumerate(reader.tensors):
        ours = np.fromfile(f"{work}/{index}.f32", np.float32)
        os.remove(f"{work}/{index}.f32")
        differing = bits_differing(ours, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        counts = by_kind.setdefault(tensor.tensor_type.name, [0, 0, 0])
        counts[0] += 1
        counts[1] += differing
        counts[2] += ours.size
    for kind, (tensors, differing, size) in by_kind.items():
        report(f"model: {tensors} tensors of {kind}", differing, size)
    check_copy(program, work, path)


def check_copy(program, work, path):
    subprocess.run([program, "copy_gguf", path, f"{work}/copy.gguf"], check=True)
    a, b = gguf.GGUFReader(path), gguf.GGUFReader(f"{work}/copy.gguf")
    ours = {f.name: f.contents() for f in b.fields.values() if not f.name.startswith("GGUF.")}
    theirs = {f.name: f.contents() for f in a.fields.values() if not f.name.startswith("GGUF.")}
    report("copied GGUF: metadata", sum(ours.get(k) != v for k, v in theirs.items()) + len(ours.keys() - theirs.keys()),
           len(theirs))
    report("copied GGUF: tensors", sum(
        x.name != y.name or x.tensor_type != y.tensor_type or list(x.shape) != list(y.shape) or
        x.data.tobytes() != y.data.tobytes() for x, y in zip(a.tensors, b.tensors)) +
        abs(len(a.tensors) - len(b.tensors)), len(a.tensors))
    os.remove(f"{work}/copy.gguf")


def check_made_gguf(program, work):
    writer = gguf.GGUFWriter(f"{work}/made.gguf", "llama")
    writer.add_uint8("a.u8", 200)
    writer.add_int16("a.i16", -300)
    writer.add_uint64("a.u64", 1 << 40)
    writer.add_int64("a.i64", -(1 << 40))
    writer.add_float32("a.f32", 1e-5)
    writer.add_float64("a.f64", 1e-5)
    writer.add_bool("a.bool", True)
    writer.add_array("a.texts", ["", "é", "b"])
    writer.add_array("a.ints", [1, -2, 3])
    writer.add_array("a.floats", [0.5, -1.25])
    random = np.random.default_rng(2)
    writer.add_tensor("matrix", random.normal(size=(3, 5)).astype(np.float32))
    writer.add_tensor("half", random.normal(size=(2, 3, 4)).astype(np.float16))
    writer.add_tensor("blocks", random_blocks(random, T.Q4_K, 6, True).reshape(3, -1), raw_dtype=T.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_copy(program, work, f"{work}/made.gguf")


def check_safetensors(program, work):
    random = np.random.default_rng(3)
    tensors = {f"t.{np.dtype(d).name}": (random.normal(size=(3, 7)) * 50).astype(d) for d in (
        np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_)}
    tensors["scalar"], tensors["none"], tensors["é\"\n"] = np.array(2, np.float32), np.zeros((0, 4), np.int8), np.ones(3)
    save_file(tensors, f"{work}/made.safetensors", metadata={"format": "pt", "é": "\""})
    subprocess.run([program, "copy_safetensors", f"{work}/made.safetensors", f"{work}/copy.safetensors"], check=True)
    with safe_open(f"{work}/copy.safetensors", "np") as copy:
        report("copied safetensors: metadata", int(copy.metadata() != {"format": "pt", "é": "\""}), 1)
        names = set(copy.keys())
        report("copied safetensors: tensors", len(names ^ tensors.keys()) + sum(
            copy.get_tensor(n).dtype != tensors[n].dtype or copy.get_tensor(n).shape != tensors[n].shape or
            copy.get_tensor(n).tobytes() != tensors[n].tobytes() for n in names & tensors.keys()), len(tensors))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("work")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    check_blocks(arguments.program, arguments.work)
    check_made_gguf(arguments.program, arguments.work)
    check_safetensors(arguments.program, arguments.work)
    if arguments.model:
        check_model(arguments.program, arguments.work, arguments.model)
    sys.exit(failures != 0)


main()
