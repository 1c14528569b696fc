# make interop: $PYTHON tests/interop/bitsandbytes_optim.py $WORK --elements 4000037 --steps 50 && QLORA_OPTIM_GOLDEN=$WORK $BUILD/bin/test_optim --gtest_filter='BitsandbytesAdamw.*'
"""Parameters and optimizer state after some steps of bitsandbytes' AdamW and AdamW8bit on the CPU.

Wrote tests/golden/optim with bitsandbytes 0.50.2, torch 2.11.0, numpy 2.4 (x86-64, AVX-512):

    python3 tests/interop/bitsandbytes_optim.py tests/golden/optim

A longer comparison than the committed files allow:

    python3 tests/interop/bitsandbytes_optim.py DIR --elements 4000037 --steps 50
    QLORA_OPTIM_GOLDEN=DIR build/bin/test_optim --gtest_filter='BitsandbytesAdamw.*'

A file is eight doubles (elements, state bits, steps, lr, weight decay, beta1, beta2, eps), then value fp32, state1, state2
(fp32 or uint8), and for 8 bits absmax1, absmax2 fp32. Parameters and gradients come from the integer hash below, which the
test repeats: all its values are exact in fp32.
"""

import argparse
import pathlib

import bitsandbytes
import numpy as np
import torch

CASES = [  # name, elements, state bits, weight decay
    ("adamw8_whole_blocks", 8192, 8, 0.1),
    ("adamw8_ragged_block", 4613, 8, 0.0),
    ("adamw8_small_tensor", 1003, 8, 0.1),  # below min_8bit_size: fp32 state
    ("adamw32", 1501, 32, 0.1),
]


def draw(elements, stream):
    """Numbers in (-1, 1) times 2^-(0..15), the exponent by runs of 64; element 7 of 97 and block 3 are zero."""
    i = np.arange(elements, dtype=np.uint64)
    x = (i * np.uint64(2654435761) + np.uint64(stream) * np.uint64(2246822519) + np.uint64(374761393)) & np.uint64(0xFFFFFFFF)
    for multiplier in (2246822519, 3266489917):
        x ^= x >> np.uint64(15)
        x = (x * np.uint64(multiplier)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    whole = (x >> np.uint64(8)).astype(np.int64) - (1 << 23)
    value = np.ldexp(whole.astype(np.float64), -23 - (i // np.uint64(64) % np.uint64(16)).astype(np.int64))
    value[(i % np.uint64(97) == 7) | (i // np.uint64(256) == 3)] = 0
    return torch.from_numpy(value.astype(np.float32))


def write_case(path, elements, bits, weight_decay, steps, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    parameter = torch.nn.Parameter(draw(elements, 0))
    kind = bitsandbytes.optim.AdamW8bit if bits == 8 else bitsandbytes.optim.AdamW
    optimizer = kind([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    for step in range(1, steps + 1):
        parameter.grad = draw(elements, step)
        optimizer.step()
    state = optimizer.state[parameter]
    with open(path, "wb") as file:
        np.array([elements, bits, steps, lr, weight_decay, *betas, eps], np.float64).tofile(file)
        for tensor in [parameter.detach(), state["state1"], state["state2"]]:
            tensor.numpy().tofile(file)
        if state["state1"].dtype == torch.uint8:
            for tensor in [state["absmax1"], state["absmax2"]]:
                tensor.numpy().tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--elements", type=int, help="one 8-bit and one 32-bit case of this size instead")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    cases = CASES
    if arguments.elements:
        cases = [("adamw8", arguments.elements, 8, 0.1), ("adamw32", arguments.elements, 32, 0.1)]
    for name, elements, bits, weight_decay in cases:
        write_case(arguments.directory / f"{name}.bin", elements, bits, weight_decay, arguments.steps)
    print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
