# make interop: QLORA=$QLORA $PYTHON tests/interop/torch_files.py $WORK
"""Model directories whose weights torch.save wrote against the same model in safetensors.

    QLORA=build/bin/qlora python tests/interop/torch_files.py FOLDER

A made model in float32 and in bfloat16 is saved as pytorch_model.bin in several forms (a state dict, an OrderedDict, a plain dict of
Parameters, Parameters with attributes, transposed tensors and pieces of larger ones, tied tensors, pickle protocols 2 to 5), as shards
with an index, and within a dict. For each:
- `qlora inspect --json` tells the same config, tensors and footprint;
- two steps of training write the same adapter, byte for byte;
- a merged export has no .bin file, and the same model.safetensors.
Files that the program must refuse name what they ask for: a pickle that would run os.system (and has not), one from before torch 1.6.
"""
import collections
import json
import os
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

from made_model import EOS, VOCABULARY, make_model, make_rows

QLORA = os.environ.get("QLORA", "build/bin/qlora")
failures = 0


def report(what, differing):
    global failures
    failures += bool(differing)
    print(f"{what:44} {'differs: ' + str(differing) if differing else 'equal'}")


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    return done.stdout


def bytes_of(path):
    with open(path, "rb") as file:
        return file.read()


def transposed(tensor):
    return tensor.t().contiguous().t() if tensor.dim() == 2 else tensor


def piece(tensor):
    """The tensor as columns of a wider one, behind rows that belong to no tensor."""
    if tensor.dim() != 2:
        return torch.cat([tensor, tensor])[: len(tensor)]
    wider = torch.zeros(tensor.shape[0] + 2, tensor.shape[1] + 3, dtype=tensor.dtype)
    wider[2:, 1:-2] = tensor
    return wider[2:, 1:-2]


def with_attribute(tensor):
    parameter = torch.nn.Parameter(tensor, requires_grad=False)
    parameter.made = True
    return parameter


def tied(tensors):
    name = "model.embed_tokens.weight"
    return {**tensors, "lm_head.weight": tensors[name]}


def state_dict(tensors):
    """What Module.state_dict() returns: an OrderedDict with an attribute."""
    state = collections.OrderedDict(tensors)
    state._metadata = collections.OrderedDict({"": {"version": 1}, "model": {"version": 1}})
    return state


def each(change):
    return lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}


FORMS = {"state dict": state_dict, "plain dict": dict, "OrderedDict": collections.OrderedDict, "Parameters": each(torch.nn.Parameter),
         "Parameters with attributes": each(with_attribute), "transposed": each(transposed), "pieces": each(piece), "tied": tied}


def write_index(path, tensors):
    names = sorted(tensors)
    files = {}
    for index, part in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-{index + 1:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in part}, os.path.join(path, file))
        files.update({name: file for name in part})
    with open(os.path.join(path, "pytorch_model.bin.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": 0}, "weight_map": files}, file)


def variants(tensors):
    """What is compared, and a function that writes it into a directory."""
    def save(value, **options):
        return lambda path: torch.save(value, os.path.join(path, "pytorch_model.bin"), **options)
    for form, make in FORMS.items():
        yield form, save(make(tensors))
    for protocol in (2, 3, 4, 5):
        yield f"protocol {protocol}", save(state_dict(tensors), pickle_protocol=protocol)
    yield "shards", lambda path: write_index(path, tensors)


def directory_with(folder, source, write):
    path = os.path.join(folder, "torch")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path, ignore=shutil.ignore_patterns("*.safetensors"))
    write(path)
    return path


def facts(path):
    told = json.loads(qlora("inspect", path, "--json"))
    return {key: told[key] for key in ("config", "family", "tensors", "footprint")}


def results(folder, name, model):
    run, merged, recipe = (os.path.join(folder, name + end) for end in ("-run", "-merged", ".yaml"))
    for path in (run, merged):
        shutil.rmtree(path, ignore_errors=True)
    with open(recipe, "w") as file:
        json.dump({"model": {"path": model}, "quantization": {"method": "nf4"}, "lora": {"rank": 4, "alpha": 8},
                   "data": {"train": [{"path": os.path.join(folder, "rows.jsonl"), "format": "pretokenized"}]},
                   "train": {"max_steps": 2, "compute_dtype": "float32", "device": "cpu"}, "output": {"dir": run}}, file)
    qlora("plan", recipe)
    qlora("train", recipe)
    qlora("export", run, "--format", "merged", "--merge-base", "original", "--output", merged)
    files = sorted(os.listdir(merged))
    return (bytes_of(os.path.join(run, "adapter", "adapter_model.safetensors")),
            bytes_of(os.path.join(merged, "model.safetensors")), [file for file in files if file.endswith(".bin")])


def compare(folder, source, dtype):
    tensors = load_file(os.path.join(source, "model.safetensors"))
    wanted, wanted_facts = results(folder, "plain", source), facts(source)
    for what, write in variants(tensors):
        path = directory_with(folder, source, write)
        told, found = facts(path), results(folder, "torch", path)
        # A second name of the embedding is one more tensor of the file.
        kept = [key for key in told if not (what == "tied" and key in ("tensors", "footprint"))]
        differing = [key for key in kept if told[key] != wanted_facts[key]]
        differing += [part for part, a, b in zip(("adapter", "merged weights", "files"), found, wanted) if a != b]
        report(f"{dtype}, {what}", differing)


class Command:
    """Unpickled by a reader that runs what it reads, it would make a file."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def refusal(path):
    done = subprocess.run([QLORA, "inspect", path], capture_output=True, text=True)
    return done.returncode, done.stderr


def check_refusals(folder, source):
    tensors = load_file(os.path.join(source, "model.safetensors"))
    trace = os.path.join(folder, "was-run")
    cases = {"os.system": ({**tensors, "x": Command(trace)}, {}, ".system"),
             "before torch 1.6": (tensors, {"_use_new_zipfile_serialization": False}, "before torch 1.6"),
             "complex numbers": ({**tensors, "x": torch.zeros(2, dtype=torch.complex64)}, {}, "ComplexFloatStorage"),
             "a sparse tensor": ({**tensors, "x": torch.eye(2).to_sparse()}, {}, "_rebuild_sparse_tensor"),
             "a whole module": (torch.nn.Linear(2, 2), {}, "torch.nn.modules.linear.Linear")}
    for what, (value, options, word) in cases.items():
        path = directory_with(folder, source, lambda p: torch.save(value, os.path.join(p, "pytorch_model.bin"), **options))
        status, said = refusal(path)
        report(f"refused: {what}", [] if status == 2 and word in said else [status, said])
    report("nothing was run", ["was-run"] if os.path.exists(trace) else [])


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    make_rows(os.path.join(folder, "rows.jsonl"), EOS, VOCABULARY, 16)
    source = os.path.join(folder, "model")
    make_model(source)
    compare(folder, source, "float32")
    half = os.path.join(folder, "half")
    shutil.copytree(source, half, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(os.path.join(source, "model.safetensors")).items()}
    save_file(tensors, os.path.join(half, "model.safetensors"), metadata={"format": "pt"})
    compare(folder, half, "bfloat16")
    check_refusals(folder, source)
    sys.exit(failures != 0)


main()
