# make interop: QLORA=$QLORA QLORA_INTEROP_LOGITS=$BUILD/bin/interop_logits $PYTHON tests/interop/gguf_t5.py $WORK
"""GGUF files of T5, those of other tools and those of `qlora export`, with their unigram tokenizers.

    QLORA=build/bin/qlora QLORA_INTEROP_LOGITS=build/bin/interop_logits python tests/interop/gguf_t5.py FOLDER

Two made models with a unigram vocabulary that sentencepiece trains (nmt_nfkc, as T5's): T5's kind (a plain MLP, head and embedding one
matrix) and FLAN's (a gated one, a head of its own). Each as a file that is written with the gguf package as llama.cpp's converter does:
- read: the losses of the program on the file against transformers on the directory, below 2e-5;
- merged: the directory that the program makes of the file, in transformers, for its losses and ids;
- ids: `qlora tokenize` of the file, of transformers' tokenizer.json and of transformers itself for the same texts.
- use: greedy answers against transformers, and short runs in NF4 on the file and as_stored on our own q4_k_m file.
Each trained for ten steps and exported:
- f32: the names and values of the file are those of the fp32 merged export, but for the head of T5's kind, which is the embedding times
  d_model^-0.5 (llama.cpp scales nothing itself); its metadata is the converter's, value by value;
- q4_k_m: blocks as llama.cpp's reference quantizers make them of the f32 file's tensors, and tensors of the types that llama.cpp's own
  quantizer gives to a file of the same model;
- llama.cpp: its logits of the f32 file, and of the base with the adapter file, against transformers on the fp32 merged export, and its
  tokens.

The last three need llama-cpp-python 0.3.36; without it the script says so and checks the rest. Ran with gguf 0.19.0, transformers 5.23.0,
torch 2.11.0, sentencepiece 0.2.3, llama-cpp-python 0.3.36.
"""
import io
import json
import os
import random
import subprocess
import sys

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
import gguf
import numpy as np
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration, T5Tokenizer

from gguf_golden import library, quantized

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

QLORA, LOGITS = os.environ.get("QLORA", "build/bin/qlora"), os.environ.get("QLORA_INTEROP_LOGITS", "build/bin/interop_logits")
LOSS, LLAMA_LOGITS = 2e-5, {"T5": 2e-3, "FLAN": 3e-2}  # llama.cpp's exponentials are its own, its GELU is a table in fp16
HIDDEN, ROWS = 256, 256  # of the embedding: more than there are tokens
WORDS = ("plain words two spaces learned cities oak shelves Bergen Oslo the capital of Norway is answer translate English to German "
         "ﬁne Ünïcödé 12.5 needs only boats").split()
TEXTS = ["plain words", "Ünïcödé ﬁne 例 🦙\n\ttabs", " two  spaces ", "12.5 + 3", "translate English to German: the capital</s>"]
KINDS = {"T5": dict(feed_forward_proj="relu"), "FLAN": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)}
SOURCE, TARGET = [(17 * i * i + 3 * i) % 40 + 3 for i in range(23)], [0] + [(7 * i * i + 5) % 40 + 3 for i in range(15)]


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}")
    return done.stdout


def make_vocabulary(path):
    generator = random.Random(1)
    texts = [" ".join(generator.choices(WORDS, k=12)) for _ in range(600)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=150, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, normalization_rule_name="nmt_nfkc", minloglevel=2)
    with open(path, "wb") as file:
        file.write(model.getvalue())


def make_model(kind, path):
    torch.manual_seed(7)
    config = T5Config(vocab_size=ROWS, d_model=HIDDEN, d_kv=32, d_ff=512, num_layers=3, num_decoder_layers=2, num_heads=4,
                      layer_norm_epsilon=3e-4, dropout_rate=0.0, decoder_start_token_id=0, **KINDS[kind])
    model = T5ForConditionalGeneration(config).float()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.06)
    model.save_pretrained(path)
    if kind == "FLAN":  # transformers 5 makes tied ones alone
        tensors = load_file(os.path.join(path, "model.safetensors"))
        tensors["lm_head.weight"] = torch.empty(ROWS, HIDDEN).normal_(std=0.06)
        save_file(tensors, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    make_vocabulary(os.path.join(path, "spiece.model"))
    T5Tokenizer.from_pretrained(path, extra_ids=10).save_pretrained(path)


def load(path):
    return AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32).eval()


def their_logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([SOURCE]), decoder_input_ids=torch.tensor([TARGET])).logits[0]


def losses(logits):
    return torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(TARGET[1:]), reduction="none")


def gguf_tensors(path):
    """Of a directory, under GGUF's names."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, 3)
    return {names.get_name(name, (".weight", ".bias")): tensor.float().numpy()
            for name, tensor in load_file(os.path.join(path, "model.safetensors")).items()}


def write_file(directory, path):
    """As T5Model of llama.cpp's convert_hf_to_gguf.py."""
    config = T5Config.from_pretrained(directory)
    model = sentencepiece_model_pb2.ModelProto()
    with open(os.path.join(directory, "spiece.model"), "rb") as file:
        model.ParseFromString(file.read())
    writer = gguf.GGUFWriter(path, "t5")
    writer.add_name("made")
    writer.add_context_length(512)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_block_count(config.num_layers)
    writer.add_decoder_block_count(config.num_decoder_layers)
    writer.add_head_count(config.num_heads)
    writer.add_key_length(config.d_kv)
    writer.add_value_length(config.d_kv)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_relative_attn_buckets_count(config.relative_attention_num_buckets)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    writer.add_decoder_start_token_id(config.decoder_start_token_id)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens, scores, types = ([piece.piece for piece in model.pieces], [piece.score for piece in model.pieces],
                             [piece.type for piece in model.pieces])
    unused = range(len(tokens), ROWS)
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens + [f"[PAD{i}]" for i in unused])
    writer.add_token_scores(scores + [-10000.0] * len(unused))
    writer.add_token_types(types + [5] * len(unused))
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_pad_token_id(0)
    for name, value in gguf_tensors(directory).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def our_logits(model, folder):
    tokens, output = os.path.join(folder, "tokens.bin"), os.path.join(folder, "logits.bin")
    np.array(SOURCE + TARGET, dtype=np.int32).tofile(tokens)
    said = subprocess.run([LOGITS, model, "-", "none", "float32", tokens, output, str(len(SOURCE)), str(len(TARGET))], capture_output=True,
                          text=True)
    if said.returncode or "no part of this architecture" in said.stderr + said.stdout:
        sys.exit(said.stdout + said.stderr)
    return torch.from_numpy(np.fromfile(output, dtype=np.float32)).view(len(TARGET), -1)


def our_ids(tokenizer):
    lines = "".join(json.dumps(text) + "\n" for text in TEXTS)
    return [json.loads(line) for line in run(QLORA, "tokenize", "--tokenizer", tokenizer, "--jsonl", input=lines).splitlines()]


def train(directory, folder):
    rows, ran = os.path.join(folder, "rows.jsonl"), os.path.join(folder, "run")
    generator = random.Random(5)
    draw = lambda: [generator.randrange(3, 45) for _ in range(generator.randrange(5, 40))] + [1]
    with open(rows, "w") as file:
        file.writelines(json.dumps({"input_ids": draw(), "labels": draw()}) + "\n" for _ in range(40))
    recipe = {"model": {"path": directory, "dtype": "float32"}, "quantization": {"method": "none"}, "lora": {"rank": 4, "alpha": 8},
              "optim": {"lr": 1e-2}, "data": {"train": [{"path": rows, "format": "pretokenized"}]},
              "train": {"max_steps": 10, "compute_dtype": "float32", "device": "cpu"}, "output": {"dir": ran}}
    with open(os.path.join(folder, "recipe.yaml"), "w") as file:
        json.dump(recipe, file)
    run(QLORA, "train", os.path.join(folder, "recipe.yaml"))
    run(QLORA, "export", ran, "--format", "merged", "--dtype", "float32", "--output", os.path.join(folder, "merged"))
    for kind in ("f32", "q4_k_m"):
        run(QLORA, "export", ran, "--format", "gguf", "--type", kind, "--output", os.path.join(folder, kind))
    run(QLORA, "export", ran, "--format", "gguf-lora", "--output", os.path.join(folder, "lora"))


def fields(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items() if not name.startswith("GGUF.")}


def tensors_of(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


if llama_cpp:
    @llama_cpp.llama_log_callback
    def errors_alone(level, text, _):
        if level >= 4:
            sys.stderr.write(text.decode())


class Llama:
    """An encoder-decoder model in llama.cpp, through its C functions: the package's class knows decoders alone."""

    def __init__(self, path, adapter=None):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 128
        parameters.type_k = parameters.type_v = 0
        parameters.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if adapter:
            lora = llama_cpp.llama_adapter_lora_init(self.model, adapter.encode())
            assert lora, "llama.cpp does not load the adapter"
            llama_cpp.llama_set_adapters_lora(self.context, (llama_cpp.llama_adapter_lora_p_ctypes * 1)(lora), 1,
                                              (llama_cpp.ctypes.c_float * 1)(1.0))

    def batch(self, ids):
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        return batch

    def logits(self):
        assert llama_cpp.llama_encode(self.context, self.batch(SOURCE)) == 0
        assert llama_cpp.llama_decode(self.context, self.batch(TARGET)) == 0
        rows = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape=(len(TARGET), ROWS))
        return torch.tensor(rows.copy())

    def ids(self, text):
        vocabulary, data = llama_cpp.llama_model_get_vocab(self.model), text.encode()
        out = (llama_cpp.llama_token * 256)()
        return list(out[:llama_cpp.llama_tokenize(vocabulary, data, len(data), out, 256, True, True)])


def compare_read(kind, directory, folder, bad):
    path = os.path.join(folder, "theirs.gguf")
    write_file(directory, path)
    wanted = their_logits(load(directory))
    difference = (losses(our_logits(path, folder)) - losses(wanted)).abs().max().item()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [tokenizer(text).input_ids for text in TEXTS]
    same = [our_ids(source) == ids for source in (path, directory)]
    print(f"{kind}, the gguf package's file: losses within {difference:.1e} of transformers'; ids of the file, of tokenizer.json: "
          f"{', '.join('the same' if each else 'OTHERS' for each in same)}")
    bad += [f"{kind} read"] * (not difference < LOSS) + [f"{kind} ids"] * (not all(same))
    made = os.path.join(folder, "directory")
    run(QLORA, "export", "--model", path, "--format", "merged", "--dtype", "float32", "--output", made)
    difference = (losses(their_logits(load(made))) - losses(wanted)).abs().max().item()
    reader = AutoTokenizer.from_pretrained(made)
    same = [reader(text).input_ids for text in TEXTS] == ids
    print(f"{kind}, the directory made of it: losses within {difference:.1e}, ids {'the same' if same else 'OTHERS'} in transformers")
    bad += [f"{kind} directory"] * (not difference < LOSS) + [f"{kind} ids of the directory"] * (not same)
    return ids


def compare_use(kind, directory, folder, bad):
    """Greedy answers of the gguf package's file; runs in NF4 on it and on the blocks of our own, from texts to an evaluation."""
    path, tokenizer, model = os.path.join(folder, "theirs.gguf"), AutoTokenizer.from_pretrained(directory), load(directory)
    prompts = ["plain words", "translate English to German: the capital", "two oak shelves"]
    with torch.no_grad():
        answers = [tokenizer.decode(model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=12, do_sample=False)[0],
                                    skip_special_tokens=True) for prompt in prompts]
    ours = [run(QLORA, "generate", "--model", path, "--prompt", prompt, "--compute-dtype", "float32", "--max-new-tokens", "12").strip()
            for prompt in prompts]
    same = sum(a.split() == b.split() for a, b in zip(ours, answers))
    print(f"{kind}, the gguf package's file: {same} of {len(prompts)} greedy answers are transformers'")
    bad += [f"{kind} answers"] * (same < len(prompts))
    rows = os.path.join(folder, "texts.jsonl")
    generator = random.Random(6)
    draw = lambda: " ".join(generator.choices(WORDS, k=8))
    with open(rows, "w") as file:
        file.writelines(json.dumps({"input": draw(), "output": draw()}) + "\n" for _ in range(24))
    for method, base in (("nf4", path), ("as_stored", os.path.join(folder, "q4_k_m", "model.gguf"))):
        ran = os.path.join(folder, method)
        recipe = {"model": {"path": base}, "quantization": {"method": method}, "lora": {"rank": 4, "alpha": 8},
                  "data": {"train": [{"path": rows, "format": "input_output"}], "sequence_length": 128},
                  "train": {"max_steps": 3, "device": "cpu"}, "output": {"dir": ran}}
        with open(os.path.join(folder, "recipe.yaml"), "w") as file:
            json.dump(recipe, file)
        run(QLORA, "train", os.path.join(folder, "recipe.yaml"))
        run(QLORA, "evaluate", ran, "--data", rows)
        print(f"{kind}, {method} on {os.path.relpath(base, folder)}: trained and evaluated")


def compare_written(kind, folder, bad):
    expected, plain = gguf_tensors(os.path.join(folder, "merged")), tensors_of(os.path.join(folder, "f32", "model.gguf"))
    if kind == "T5":
        expected["output.weight"] = expected["token_embd.weight"] * np.float32(HIDDEN**-0.5)
    others = [name for name in expected.keys() | plain.keys()
              if name not in expected or name not in plain or not np.allclose(plain[name].data, expected[name], rtol=1e-6, atol=0)]
    said, wanted = fields(os.path.join(folder, "f32", "model.gguf")), fields(os.path.join(folder, "theirs.gguf"))
    # Their scores of pieces that are not normal, and the extra tokens of transformers, are the converter's own affair.
    keys = [key for key in wanted if key not in ("general.name", "tokenizer.ggml.scores", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
            and said.get(key) != wanted[key]]
    print(f"{kind}, f32: {len(plain)} tensors, {len(others)} other than the merged export's {' '.join(others)}; "
          f"{len(keys)} keys other than the converter's {' '.join(keys)}")
    bad += [f"{kind} f32"] * bool(others) + [f"{kind} metadata"] * bool(keys)
    return plain


def compare_quantized(kind, folder, plain, bad):
    lib, found, wrong = library(), tensors_of(os.path.join(folder, "q4_k_m", "model.gguf")), []
    requantized = os.path.join(folder, "llama-q4_k_m.gguf")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = 15
    parameters.nthread = 2
    status = llama_cpp.llama_model_quantize(os.path.join(folder, "f32", "model.gguf").encode(), requantized.encode(), parameters)
    assert status == 0, "llama.cpp does not quantize the file"
    theirs = tensors_of(requantized)
    for name, tensor in found.items():
        if tensor.tensor_type != theirs[name].tensor_type:
            wrong.append(f"{name} {tensor.tensor_type.name} not {theirs[name].tensor_type.name}")
        elif tensor.tensor_type.name not in ("F32", "F16"):
            blocks = quantized(lib, tensor.tensor_type.name, plain[name].data)
            if not np.array_equal(np.asarray(tensor.data).reshape(-1), blocks):
                wrong.append(name)
    kinds = sorted({tensor.tensor_type.name for tensor in found.values()})
    print(f"{kind}, q4_k_m: {len(found)} tensors ({', '.join(kinds)}), {len(wrong)} other than llama.cpp's {' '.join(wrong)}")
    bad += [f"{kind} q4_k_m"] * bool(wrong)


def compare_llama(kind, directory, folder, ids, bad):
    merged, base = (their_logits(load(path)) for path in (os.path.join(folder, "merged"), directory))
    run(QLORA, "export", "--model", directory, "--format", "gguf", "--type", "f32", "--output", os.path.join(folder, "base"))
    adapter = os.path.join(folder, "lora", "adapter.gguf")
    for name, path, lora in (("f32 file", "f32", None), ("base and adapter", "base", adapter)):
        difference = (Llama(os.path.join(folder, path, "model.gguf"), lora).logits() - merged).abs().max().item()
        print(f"{kind}, llama.cpp, {name}: logits within {difference:.1e} of transformers' on the merged export "
              f"(the adapter moves them by {(merged - base).abs().max():.2f})")
        bad += [f"{kind} {name} in llama.cpp"] * (not difference < LLAMA_LOGITS[kind])
    reader = Llama(os.path.join(folder, "f32", "model.gguf"))
    same = [reader.ids(text) for text in TEXTS] == ids
    print(f"{kind}, llama.cpp's tokens: {'the same' if same else 'OTHERS'}")
    bad += [f"{kind} tokens"] * (not same)


def main():
    bad = []
    if llama_cpp is None:
        print("llama-cpp-python 0.3.36 is not installed: blocks, logits and tokens are not compared with llama.cpp")
    else:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(errors_alone, llama_cpp.ctypes.c_void_p(0))
    for kind in KINDS:
        folder = os.path.join(sys.argv[1], kind)
        directory = os.path.join(folder, "model")
        os.makedirs(directory, exist_ok=True)
        make_model(kind, directory)
        ids = compare_read(kind, directory, folder, bad)
        train(directory, folder)
        plain = compare_written(kind, folder, bad)
        compare_use(kind, directory, folder, bad)
        if llama_cpp:
            compare_quantized(kind, folder, plain, bad)
            compare_llama(kind, directory, folder, ids, bad)
    return ", ".join(bad) if bad else 0


if __name__ == "__main__":
    sys.exit(main())
