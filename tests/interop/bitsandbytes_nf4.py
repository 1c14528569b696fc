# make interop: QLORA_INTEROP_QUANTIZE=$BUILD/bin/interop_quantize $PYTHON tests/interop/bitsandbytes_nf4.py
"""4-bit and blockwise 8-bit quantization against bitsandbytes, byte for byte: its CPU backend, or with --device cuda its CUDA kernels.

    QLORA_INTEROP_QUANTIZE=build/bin/interop_quantize python tests/interop/bitsandbytes_nf4.py [--model FILE.gguf] [--device cuda]

Compares codes, scales, nested codes, nested scales, the offset and the restored values; prints one line a group with the number
of differing bytes and exits with 1 if any differs. Without --model it uses made weights only; with it, also every matrix of
the model (dequantized by the gguf package) as bf16, fp16 and fp32.

Ran with bitsandbytes 0.50.2, torch 2.11.0, numpy 2.4.6, gguf 0.19.0, Python 3.11 on an AVX-512 machine.

What bitsandbytes itself does not do consistently, and how it is compared here:
- its AVX-512 dequantization indexes scales per row and is wrong where a row is not a multiple of the block size; weights are
  therefore passed flat;
- FP4's code 8 decodes to +0 or -0 depending on the shape; zeros are compared without their sign;
- its AVX-512 bf16 rounding flushes subnormals; restored values below 2^-126 are compared as fp32 only.
"""
import argparse
import collections
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import numpy as np  # noqa: E402
import torch  # noqa: E402
import bitsandbytes.functional as F  # noqa: E402

torch.set_num_threads(1)  # the nested offset is a mean, which rounds differently with more threads
PROGRAM = os.environ.get("QLORA_INTEROP_QUANTIZE", "build/bin/interop_quantize")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
differing, compared = collections.Counter(), collections.Counter()


def raw(tensor):
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def bytes_differing(group, ours, theirs):
    a, b = np.frombuffer(ours, np.uint8), np.frombuffer(theirs, np.uint8)
    compared[group] += b.size
    differing[group] += int((a != b).sum()) if a.size == b.size else b.size


class Program:
    """Our side: one process, one job a line."""

    def __init__(self, device):
        self.device = device
        self.process = subprocess.Popen([PROGRAM, device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder, *job):
        print(*job, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        if not answer:
            sys.exit(f"{PROGRAM} failed at: {' '.join(map(str, job))}")
        return lambda name: open(f"{folder}/out.{name}", "rb").read()


program = None


def unsigned_zeros(data, dtype):
    tensor = torch.frombuffer(bytearray(data), dtype=dtype).clone()
    tensor[tensor == 0] = 0
    return raw(tensor)


def four_bit(group, folder, weight, code, block_size, double, output):
    dtype = str(weight.dtype).removeprefix("torch.")
    with open(f"{folder}/in", "wb") as file:
        file.write(raw(weight))
    ours = program.run(folder, "four_bit", f"{folder}/in", dtype, code, block_size,
               "double" if double else "plain", output, f"{folder}/out")
    packed, state = F.quantize_4bit(weight.to(program.device), blocksize=block_size, quant_type=code, compress_statistics=double)
    bytes_differing(f"{group} codes", ours("packed"), raw(packed))
    if double:
        bytes_differing(f"{group} nested codes", ours("codes"), raw(state.absmax))
        bytes_differing(f"{group} nested scales", ours("nested_absmax"), raw(state.state2.absmax))
        bytes_differing(f"{group} offset", ours("offset"), raw(state.offset.reshape(1)))
        bytes_differing(f"{group} nested map", ours("map"), raw(state.state2.code))
    else:
        bytes_differing(f"{group} scales", ours("absmax"), raw(state.absmax))
    state.dtype = DTYPES[output]
    restored = F.dequantize_4bit(packed, state).reshape(-1)
    if code == "fp4":
        bytes_differing(f"{group} restored", unsigned_zeros(ours("restored"), DTYPES[output]),
                        unsigned_zeros(raw(restored), DTYPES[output]))
    else:
        bytes_differing(f"{group} restored", ours("restored"), raw(restored))


def blockwise8(group, folder, values, map_name, code, block_size):
    dtype = str(values.dtype).removeprefix("torch.")
    for name, tensor in (("in", values), ("map", code)):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(raw(tensor))
    ours = program.run(folder, "blockwise8", f"{folder}/in", dtype, map_name or f"{folder}/map", block_size, f"{folder}/out")
    codes, state = F.quantize_blockwise(values.to(program.device), code=code.to(program.device), blocksize=block_size)
    bytes_differing(f"{group} codes", ours("codes"), raw(codes))
    bytes_differing(f"{group} scales", ours("absmax"), raw(state.absmax))
    bytes_differing(f"{group} map", ours("map"), raw(code))
    state.dtype = torch.float32
    bytes_differing(f"{group} restored", ours("restored"), raw(F.dequantize_blockwise(codes, state)))


def made_weights(generator):
    for count in (1, 31, 64, 65, 4096, 6145, 3 * 4096 + 17, 262144):
        yield f"normal {count}", torch.randn(count, generator=generator) * 0.02
    zeros = torch.randn(8192, generator=generator)
    zeros[:4096] = 0
    zeros[-64:] = 0
    yield "zero blocks", zeros
    yield "all zero, short block", torch.zeros(4096 + 7)
    yield "constant", torch.full((8192,), 0.25)
    yield "wide range", torch.randn(8192, generator=generator) * torch.exp2(torch.randint(-12, 12, (8192,), generator=generator).float())
    yield "grid of ties", (torch.arange(8192) % 512 - 256) / 256.0


def subnormal_weights(generator):
    for scale in (1e-36, 1e-37, 1e-38, 1e-39, 1e-41, 1e-45):
        yield torch.randn(4096 + 5, generator=generator) * scale


def bin_borders(code):
    """Every fp32 within 40 steps of a value where the code may change, for an absmax of 1."""
    middles = (code[:-1].double() + code[1:].double()) / 2
    borders = torch.round((middles + 1) * 32767.5).double()
    values = torch.cat([(borders + half) / 32767.5 - 1 for half in (-1.5, -0.5, 0.5, 1.5)]).float()
    values = values[values.abs() <= 1]
    steps = torch.arange(-40, 41, dtype=torch.int32)
    near = (values.view(torch.int32)[:, None] + steps).reshape(-1).view(torch.float32)
    near = near[near.abs() <= 1]
    near = torch.nn.functional.pad(near, (0, -near.numel() % 4095))
    return torch.cat([torch.ones(near.numel() // 4095, 1), near.reshape(-1, 4095)], 1).reshape(-1).contiguous()


def model_matrices(path):
    import gguf

    for tensor in gguf.GGUFReader(path).tensors:
        if len(tensor.shape) == 2:
            yield tensor.name, torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a GGUF file")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    global program
    program = Program(arguments.device)
    generator = torch.Generator().manual_seed(7)
    with tempfile.TemporaryDirectory() as folder:
        for name, weight in made_weights(generator):
            for dtype in DTYPES:
                for code in ("nf4", "fp4"):
                    for block_size in BLOCK_SIZES if weight.numel() < 100000 else (64,):
                        for double in (False, True):
                            four_bit(f"made {dtype} {code}", folder, weight.to(DTYPES[dtype]), code, block_size, double, dtype)
        for weight in subnormal_weights(generator):
            for dtype in ("float32", "bfloat16"):
                four_bit(f"subnormal {dtype}", folder, weight.to(DTYPES[dtype]), "nf4", 64, False, "float32")
        for name, code in (("signed", F.create_dynamic_map(True)), ("unsigned", F.create_dynamic_map(False)),
                           ("", torch.linspace(-1, 1, 256)), ("", torch.rand(256, generator=generator).mul(2).sub(1).sort()[0])):
            label = name or "other map"
            blockwise8(f"8-bit {label} borders", folder, bin_borders(code), name, code, 4096)
            for dtype in DTYPES:
                for block_size in BLOCK_SIZES[1:]:
                    values = torch.randn(70001, generator=generator) * 0.01
                    values[:block_size] = 0
                    blockwise8(f"8-bit {label} {dtype}", folder, values.to(DTYPES[dtype]), name, code, block_size)
        if arguments.model:
            for name, weight in model_matrices(arguments.model):
                for dtype in DTYPES:
                    for double in (False, True):
                        four_bit(f"model {dtype} nf4", folder, weight.to(DTYPES[dtype]).reshape(-1), "nf4", 64, double, dtype)
                four_bit("model bfloat16 fp4", folder, weight.bfloat16().reshape(-1), "fp4", 64, True, "bfloat16")
    for group in compared:
        print(f"{group}: {differing[group]} of {compared[group]} bytes differ")
    total = sum(differing.values())
    print(f"total: {total} of {sum(compared.values())} bytes differ")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
