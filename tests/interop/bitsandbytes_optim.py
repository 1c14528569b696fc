# make interop: $PYTHON tests/interop/bitsandbytes_optim.py $WORK --elements 4000037 --steps 50 && QLORA_OPTIM_GOLDEN=$WORK $BUILD/bin/test_optim --gtest_filter='BitsandbytesOptimizers.*'
"""Parameters and optimizer state after some steps of bitsandbytes' optimizers on the CPU.

Wrote tests/golden/optim with bitsandbytes 0.50.2, torch 2.11.0, numpy 2.4 (x86-64, AVX-512):

    python3 tests/interop/bitsandbytes_optim.py tests/golden/optim

A longer comparison than the committed files allow:

    python3 tests/interop/bitsandbytes_optim.py DIR --elements 4000037 --steps 50
    QLORA_OPTIM_GOLDEN=DIR build/bin/test_optim --gtest_filter='BitsandbytesOptimizers.*'

A file NAME.CASE.bin, NAME as optim.name, is eleven doubles (elements, state bits, steps, lr, weight decay, eps, alpha,
ramp, three betas), then value fp32, the states in order (fp32 or uint8), and for 8 bits their absmax fp32. Parameters and gradients come from the integer hash below, which the
test repeats: all its values are exact in fp32.
"""

import argparse
import pathlib

import bitsandbytes
import numpy as np
import torch

CASES = [  # name, elements, state bits, weight decay
    ("adamw_8bit.whole_blocks", 8192, 8, 0.1),
    ("adamw_8bit.ragged_block", 4613, 8, 0.0),
    ("adamw_8bit.small_tensor", 1003, 8, 0.1),  # below min_8bit_size: fp32 state
    ("adamw.plain", 1501, 32, 0.1),
    ("lion_8bit.ragged_block", 4613, 8, 0.1),
    ("lion.plain", 1501, 32, 0.1),
    ("ademamix_8bit.ragged_block", 4613, 8, 0.1),
    ("ademamix.plain", 1501, 32, 0.1),
    ("ademamix.ramp", 1501, 32, 0.1),
    ("sgd_8bit.ragged_block", 4613, 8, 0.1),
    ("sgd.plain", 1501, 32, 0.1),
    ("rmsprop_8bit.ragged_block", 4613, 8, 0.0),
    ("rmsprop.decay", 1501, 32, 0.1),
    ("adagrad_8bit.ragged_block", 4613, 8, 0.0),
    ("adagrad.decay", 1501, 32, 0.1),
    ("lamb.plain", 1501, 32, 0.1),
]
BETAS = {"adamw": (0.9, 0.999), "lamb": (0.9, 0.999), "lion": (0.9, 0.99), "ademamix": (0.9, 0.999, 0.9999), "sgd": (0.9,),
         "rmsprop": (0.99,), "adagrad": ()}


def make(name, parameter, bits, lr, weight_decay, eps, alpha, ramp):
    b = BETAS[name]
    o = bitsandbytes.optim
    eight = bits == 8
    common = dict(lr=lr, weight_decay=weight_decay)
    if name == "adamw":
        return (o.AdamW8bit if eight else o.AdamW)([parameter], betas=b, eps=eps, **common)
    if name == "lamb":
        return o.LAMB([parameter], betas=b, eps=eps, **common)
    if name == "lion":
        return (o.Lion8bit if eight else o.Lion)([parameter], betas=b, **common)
    if name == "ademamix":
        ramps = dict(t_alpha=ramp, t_beta3=ramp) if ramp else {}
        return (o.AdEMAMix8bit if eight else o.AdEMAMix)([parameter], betas=b, alpha=alpha, eps=eps, **common, **ramps)
    if name == "sgd":
        return (o.SGD8bit if eight else o.SGD)([parameter], momentum=b[0], **common)
    if name == "rmsprop":
        return (o.RMSprop8bit if eight else o.RMSprop)([parameter], alpha=b[0], eps=eps, **common)
    return (o.Adagrad8bit if eight else o.Adagrad)([parameter], eps=eps, **common)


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


def write_case(path, elements, bits, weight_decay, steps, lr=1e-3, eps=1e-8, alpha=5.0):
    name = path.name.split(".")[0].removesuffix("_8bit")
    ramp = 12 if "ramp" in path.name else 0
    parameter = torch.nn.Parameter(draw(elements, 0))
    optimizer = make(name, parameter, bits, lr, weight_decay, eps, alpha, ramp)
    for step in range(1, steps + 1):
        parameter.grad = draw(elements, step)
        optimizer.step()
    state = optimizer.state[parameter]
    betas = list(BETAS[name]) + [0.0] * (3 - len(BETAS[name]))
    with open(path, "wb") as file:
        np.array([elements, bits, steps, lr, weight_decay, eps, alpha, ramp, *betas], np.float64).tofile(file)
        for tensor in [parameter.detach(), state["state1"], state.get("state2"), state.get("absmax1"), state.get("absmax2")]:
            if tensor is not None:
                tensor.numpy().tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--elements", type=int, help="one 8-bit and one 32-bit case of each optimizer, of this size, instead")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    cases = CASES
    if arguments.elements:
        cases = [(f"{name}.long", arguments.elements, 32, 0.1 if name in ("adamw", "lion", "ademamix", "sgd", "lamb") else 0.0)
                 for name in BETAS]
        cases += [(f"{name}_8bit.long", elements, 8, decay) for (name, elements, _, decay) in
                  [(case[0].removesuffix(".long"), *case[1:]) for case in cases] if name != "lamb"]
    for name, elements, bits, weight_decay in cases:
        write_case(arguments.directory / f"{name}.bin", elements, bits, weight_decay, arguments.steps)
    print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
