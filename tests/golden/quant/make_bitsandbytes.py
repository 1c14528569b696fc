#!/usr/bin/env python3
"""Makes bitsandbytes.json: what bitsandbytes' CPU backend answers for small made weights. All numbers are raw bits in hex.

    python tests/golden/quant/make_bitsandbytes.py > tests/golden/quant/bitsandbytes.json
"""
import json
import os
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch  # noqa: E402
import bitsandbytes  # noqa: E402
import bitsandbytes.functional as F  # noqa: E402

torch.set_num_threads(1)


def bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes().hex()


def weights():
    generator = torch.Generator().manual_seed(11)
    normal = lambda count: torch.randn(count, generator=generator) * 0.02  # noqa: E731
    yield "a short last block of odd length", normal(3 * 64 + 13), torch.float32, "nf4", 64, False
    yield "bf16, double-quantized over two nested blocks", normal(32 * 260 + 5), torch.bfloat16, "nf4", 32, True
    yield "fp16 in blocks of 128", normal(1024), torch.float16, "nf4", 128, False
    yield "fp4 with a tiny positive and a tiny negative", torch.cat([normal(509), torch.tensor([1e-6, -1e-6, 1.0])]), torch.float32, "fp4", 256, False
    yield "fp4, double-quantized", normal(1024 + 2), torch.bfloat16, "fp4", 64, True
    zeros = normal(192 + 3)
    zeros[64:128] = 0
    zeros[192:] = 0
    yield "an all-zero block and an all-zero short one", zeros, torch.float32, "nf4", 64, False
    yield "subnormals", normal(128) * 1e-37, torch.float32, "nf4", 32, False
    yield "every bf16 ratio of ties", (torch.arange(512) - 256) / 256.0, torch.bfloat16, "nf4", 512, False


def four_bit_case(name, weight, dtype, code, block_size, double):
    weight = weight.to(dtype)
    packed, state = F.quantize_4bit(weight, blocksize=block_size, quant_type=code, compress_statistics=double)
    case = {"name": name, "dtype": str(dtype).removeprefix("torch."), "code": code, "block_size": block_size,
            "double_quant": double, "weight": bits(weight), "packed": bits(packed)}
    if double:
        case |= {"codes": bits(state.absmax), "nested_absmax": bits(state.state2.absmax), "offset": bits(state.offset.reshape(1))}
    else:
        case["absmax"] = bits(state.absmax)
    state.dtype = torch.float32
    case["restored"] = bits(F.dequantize_4bit(packed, state).reshape(-1))
    return case


def blockwise8_case(signed, block_size):
    generator = torch.Generator().manual_seed(13)
    values = torch.randn(700, generator=generator) * torch.exp2(torch.randint(-14, 1, (700,), generator=generator).float())
    values = values if signed else values.abs()
    values[:block_size] = 0
    codes, state = F.quantize_blockwise(values, code=F.create_dynamic_map(signed), blocksize=block_size)
    return {"signed": signed, "block_size": block_size, "values": bits(values), "codes": bits(codes), "absmax": bits(state.absmax)}


json.dump({
    "made_by": "tests/golden/quant/make_bitsandbytes.py",
    "versions": {"bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    "signed_map": bits(F.create_dynamic_map(True)),
    "unsigned_map": bits(F.create_dynamic_map(False)),
    "nf4_table": bits(F.get_4bit_type("nf4", device="cpu")),
    "fp4_table": bits(F.get_4bit_type("fp4", device="cpu")),
    "four_bit": [four_bit_case(*case) for case in weights()],
    "blockwise8": [blockwise8_case(signed, size) for signed in (True, False) for size in (64, 256)],
}, sys.stdout, indent=1)
print()
