# make interop: $PYTHON tests/interop/bitsandbytes_int8.py $BUILD/bin/interop_quantize $WORK
"""LLM.int8() beside bitsandbytes' operations called directly, on the CPU.

    python tests/interop/bitsandbytes_int8.py build/bin/interop_quantize FOLDER

Codes and scales of weights and activations (int8_vectorwise_quant, with and without a threshold), the outlier columns, and the
product (int8_mixed_scaled_mm, int8_scaled_mm) are compared bit by bit. Activations stay within fp16's range here: beyond it ours
saturate where bitsandbytes' become infinite.

Ran with bitsandbytes 0.50.2, torch 2.11.0: 0 of 19,881,984 codes and scales and 0 of 1,572,864
products differ.
"""
import pathlib
import subprocess
import sys

import numpy as np
import torch
import bitsandbytes.functional as F

PROGRAM, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])


def run(line):
    done = subprocess.run([PROGRAM], input=line + "\n", capture_output=True, text=True)
    if done.returncode or done.stderr:
        sys.exit(f"{line}: {done.stdout}{done.stderr}")


def write(name, tensor):
    tensor.contiguous().view(torch.uint8).numpy().tofile(FOLDER / name)
    return FOLDER / name


def read(name, dtype, shape):
    return torch.from_numpy(np.fromfile(FOLDER / name, np.uint8).copy()).view(dtype).reshape(shape)


def differing(ours, theirs):
    return int((ours.view(torch.uint8) != theirs.contiguous().view(torch.uint8)).sum())


def activation(tokens, columns, dtype):
    x = torch.randn(tokens, columns)
    x[:, 5] *= 9.0  # some of it beyond the threshold
    x[3, 17] = -6.0
    x[tokens // 2] = 0.0
    return x.to(dtype)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    codes = wrong_codes = products = wrong_products = 0
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16"), (torch.float16, "float16")):
        for tokens, columns, out in ((64, 576, 1536), (256, 1536, 576), (32, 2048, 512)):
            x, weight = activation(tokens, columns, dtype), torch.randn(out, columns).to(dtype)
            wx, ww = write("x", x), write("w", weight)
            CB, SCB, _ = F.int8_vectorwise_quant(weight.to(torch.float16))
            for threshold in (0.0, 6.0):
                half = x.to(torch.float16)
                CA, SCA, outliers = F.int8_vectorwise_quant(half, threshold=threshold)
                run(f"int8_rows {wx} {name} {columns} {threshold} {FOLDER}/a")
                ours = read("a.codes", torch.int8, CA.shape)
                theirs = CA.clone()
                theirs[(SCA == 0).nonzero().flatten()] = 0  # 0 * inf: their code is whatever NaN becomes
                wrong_codes += differing(ours, theirs) + differing(read("a.absmax", torch.float32, SCA.shape), SCA)
                codes += CA.numel()
                columns_found = torch.from_numpy(np.fromfile(FOLDER / "a.outliers", np.int64))
                expected = outliers if outliers is not None else torch.empty(0, dtype=torch.int64)
                if not torch.equal(columns_found, expected):
                    sys.exit(f"outlier columns differ: {columns_found} {expected}")
                run(f"int8_linear {wx} {name} {columns} {ww} {threshold} {FOLDER}/p")
                wrong_codes += differing(read("p.codes", torch.int8, CB.shape), CB)
                wrong_codes += differing(read("p.absmax", torch.float32, SCB.shape), SCB)
                codes += CB.numel()
                if threshold > 0:
                    y, _ = torch.ops.bitsandbytes.int8_mixed_scaled_mm(x, theirs, CB, SCA, SCB, outliers)
                else:
                    y = torch.ops.bitsandbytes.int8_scaled_mm.default(theirs, CB, SCA, SCB, dtype=dtype)
                mine = read("p.y", dtype, y.shape)
                wrong_products += int((mine != y).sum())
                products += y.numel()
                print(f"{name} {tokens}x{columns}->{out} threshold {threshold}: {len(expected)} outlier columns, "
                      f"largest difference {float((mine.float() - y.float()).abs().max()):.3g}")
    print(f"{wrong_codes} of {codes:,} codes and scales differ; {wrong_products} of {products:,} products differ")
    sys.exit(bool(wrong_codes or wrong_products))


main()
