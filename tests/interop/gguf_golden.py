"""Writes tests/golden/quant/gguf_blocks.txt, blocks as llama.cpp's reference quantizers encode them, for tests/quant/gguf_quantize_test.cpp.

    python tests/interop/gguf_golden.py tests/golden/quant/gguf_blocks.txt

A line a type: its name and the bytes of 512 numbers. Number i, with 32-bit unsigned arithmetic, is a sum of four bytes:
    h = i * 0x9E3779B9 + 1;  h ^= h >> 16;  h *= 0x85EBCA6B;  h ^= h >> 13;  h *= 0xC2B2AE35;  h ^= h >> 16
    value = (sum of h's bytes - 510) / 256 / 2^(i / 32 % 5)
The quantizers are those of libggml-base in llama-cpp-python 0.3.36; for Q4_0 to Q8_0 the gguf package (0.19.0) must give the same bytes.
"""
import ctypes
import importlib.util
import os
import sys

import gguf
import numpy as np

COUNT = 512
FROM_GGUF_PY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def numbers(count=COUNT):
    i = np.arange(count, dtype=np.uint32)
    h = i * np.uint32(0x9E3779B9) + np.uint32(1)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    total = sum((h >> np.uint32(8 * j)) & np.uint32(255) for j in range(4)).astype(np.float32)
    return (total - 510) / np.float32(256) / (2.0 ** (i // 32 % 5)).astype(np.float32)


def library():
    """llama.cpp's libggml-base, without loading the package itself."""
    folder = os.path.join(os.path.dirname(importlib.util.find_spec("llama_cpp").origin), "lib")
    return ctypes.CDLL(os.path.join(folder, "libggml-base.so"))


def quantized(lib, name, values):
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    values = np.ascontiguousarray(values, dtype=np.float32)
    out = np.zeros(values.size // elements * size, dtype=np.uint8)
    function = getattr(lib, f"quantize_row_{name[:2].lower() + name[2:]}_ref")
    function.restype = None
    function(values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    return out


if __name__ == "__main__":
    lib, values = library(), numbers()
    with open(sys.argv[1], "w") as file:
        for name in (*FROM_GGUF_PY, "Q4_K", "Q5_K", "Q6_K"):
            blocks = quantized(lib, name, values)
            if name in FROM_GGUF_PY:
                assert (gguf.quants.quantize(values, gguf.GGMLQuantizationType[name]) == blocks).all(), name
            file.write(f"{name} {blocks.tobytes().hex()}\n")
