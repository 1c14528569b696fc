"""Whether GPTQModel and transformers load what `qlora quantize --method gptq` writes, and take it for the same numbers.

    QLORA=build/bin/qlora python tests/interop/gptq_directories.py BASE CALIBRATION_JSONL [WORK]

BASE is a Llama in 16 bit, CALIBRATION_JSONL rows of token ids. For each setting every matrix that GPTQModel's kernel for the CPU decodes,
with its scales in float32, must equal that of `qlora dequantize --dtype float32`; the logits that GPTQModel and transformers compute on the
first row in float16 must lie within 2 % of the largest of the decoded model's in float32.

Needs gptqmodel (7.7.0), with optimum and torch >= 2.11, which tests/interop/requirements.txt does not have: with an environment of its own.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
import torch
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

QLORA = os.environ.get("QLORA", "build/bin/qlora")
LARGEST_SHARE = 0.02
SETTINGS = [["--bits", "4", "--group-size", "32"], ["--bits", "4", "--group-size", "32", "--act-order"], ["--bits", "3", "--group-size", "32"],
            ["--bits", "2", "--group-size", "32", "--asymmetric"], ["--bits", "8", "--group-size", "0"],
            ["--bits", "4", "--group-size", "32", "--no-true-sequential", "--skip-modules", "lm_head,down_proj"]]


def run(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {(done.stderr or done.stdout)[-1500:]}")


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits.float()


def logits_of_transformers(directory, ids, work):
    """In a process of its own: behind GPTQModel.load, transformers' layers hold what was never read."""
    found = os.path.join(work, "logits.pt")
    subprocess.run([sys.executable, __file__, "--logits", directory, json.dumps(ids.tolist()), found], check=True, capture_output=True)
    return torch.load(found)


def compare(base, calibration, ids, settings, work):
    out, decoded = os.path.join(work, "quantized"), os.path.join(work, "decoded")
    for directory in out, decoded:
        shutil.rmtree(directory, ignore_errors=True)
    run("quantize", "--model", base, "--method", "gptq", "--output", out, "--data", calibration, "--format", "pretokenized", "--dtype", "float16",
        *settings)
    run("dequantize", "--model", out, "--output", decoded, "--dtype", "float32")
    expected = load_file(os.path.join(decoded, "model.safetensors"))
    wanted = logits(AutoModelForCausalLM.from_pretrained(decoded, dtype=torch.float32).eval(), ids)
    tool = GPTQModel.load(out, backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=torch.float16)
    by_name = {"GPTQModel": logits(tool.model, ids)}
    problems, count = [], 0
    for name, layer in tool.model.named_modules():
        if isinstance(layer, TorchLinear):
            layer.scales = layer.scales.float()
            matrix = TorchLinear.dequantize_weight(layer).T.float().contiguous()
            count += 1
            if not torch.equal(matrix, expected[name + ".weight"]):
                problems.append(f"{name} differs by {(matrix - expected[name + '.weight']).abs().max():.2e}")
    by_name["transformers"] = logits_of_transformers(out, ids, work)
    shares = {name: ((found - wanted).abs().max() / wanted.abs().max()).item() for name, found in by_name.items()}
    problems += [f"logits of {name} are {share:.1e} of the largest apart" for name, share in shares.items() if not share <= LARGEST_SHARE]
    if count == 0:
        problems.append("GPTQModel holds no packed layer")
    text = ", ".join(f"{name} {share:.1e}" for name, share in shares.items())
    print(f"{'WRONG' if problems else 'ok   '} {' '.join(settings)}: {count} matrices; logits: {text}", *problems[:5], sep="\n      ", flush=True)
    return bool(problems)


def main(base, calibration, work=None):
    with open(calibration) as file:
        ids = torch.tensor([json.loads(file.readline())["input_ids"]])
    with tempfile.TemporaryDirectory() as folder:
        wrong = [compare(base, calibration, ids, settings, work or folder) for settings in SETTINGS]
    sys.exit(any(wrong))


if __name__ == "__main__":
    if sys.argv[1] == "--logits":
        quantized = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.float16, device_map="cpu").eval()
        torch.save(logits(quantized, torch.tensor(json.loads(sys.argv[3]))), sys.argv[4])
    else:
        main(*sys.argv[1:])
