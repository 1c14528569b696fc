#!/usr/bin/env python3
"""Token ids and decoded text against tokenizers, transformers and sentencepiece: equal in every place, or exit code 1.

    python tests/interop/tokenizer_ids.py --program build/bin/qlora [--work DIR]
        [--json DIR_OR_FILE]... [--model FILE.model]... [--gguf FILE.gguf]... [--llamacpp FILE.gguf.inp=DIR]... [--text FILE]...

Without paths it trains small vocabularies of every kind on text made here and compares on strings that are hard: combining
marks, joiners, scripts without blanks, odd white space, special tokens inside text. With paths it compares real ones, also on
the strings of --text files (.txt: whole and by line; .json, .jsonl: every string in it).

Ran with tokenizers 0.23.3, transformers 5.23.0, sentencepiece 0.2.3, gguf 0.19.0, Python 3.11.

# make interop: $PYTHON tests/interop/tokenizer_ids.py --program $QLORA --work $WORK

How sentencepiece files are compared: transformers 5 no longer has the tokenizer that works on them directly, so its rules (what
is split off first, which chunk gets a blank in front) are written out below on top of the sentencepiece package.
"""
import sys

sys.path.pop(0)  # this file's own name must not hide the tokenizers package

import argparse  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import random  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
import tokenizers  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

HARD = [
    "", " ", "  ", "   ", "\n", "\r", "\r\n", "\t", "\n\n\n", " \n \n", "\r\r\n \t", "a", " a", "a ", "  a  b  ", "\u00a0", "a\u00a0b",
    "\u3000全角\u3000", "\u2028line\u2029", "\u200b\u200c\u200d\ufeff", "\u180ea\u180e", "\x1c\x1d\x85\x0b\x0c", "\x00\x01\x7f", "Hello, world!",
    "I'll I'LL he's HE'S don't DON'T we'Ve 'ſ 'T's ''''s", "’s ‘quoted’ “text”", "12345678901234567890", "3.14159 1,000,000 ½ ² ① Ⅷ ٣٤٥ १२३ 〇一二",
    "émigré naïve Å e\u0301 A\u030a \u1e9b\u0323 ﬁ ﬀ ２０２４ ㎏ ㍿", "İstanbul ıI ǅ ß ẞ ΑΣ σς", "你好，世界！今天天气很好。", "こんにちは世界カタカナ", "안녕하세요 세계", "สวัสดีชาวโลก",
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "Привет, мир! Ёлка", "🙂🙃👍🏽👩‍👩‍👧‍👦🇩🇪🏳️‍🌈", "a\u0300\u0301\u0302\u0303b", "\u0301start", "x" * 300, "ab" * 200, " " * 400 + "x",
    "\n" * 300, "🙂" * 70, "function f(x) { return x * 2; } // ok?\n\tif (a&&b)  c+=1;", "<p class=\"x\">&amp;</p>", "C:\\path\\to\\file /usr/bin", "e=mc², ∫₀^∞ ≤ ≥ ≠",
    "<s>", "</s>", "<s>a", "a<s>", "a <s> b", " <s> ", "<s> <s>", "<s></s><unk>", "<|im_start|>user\nHi<|im_end|>\n", "<|im_end|><|im_end|>", "<|im_start", "<|endoftext|>",
    "a  <l>  b", "a  <r>  b", "a <lr> b", "word wordy sword word", "<W> <w> <Wort>", "▁", "▁▁a", " ▁ a", "a▁b", "<0x0A>", "<0x41><0xZZ>", "[INST] hi [/INST]",
    "\U0001d54f\U0001d550", "\ue000\uf8ff", "\U000e0041", "\ufffd", "a\u200db", "Ａｂｃ！？", "١٢٣٤٥٦٧٨٩", "1a2b3c", "_snake_case __dunder__", "tabs\t\tand  spaces \t mixed",
]


def corpus():
    base = [t for t in HARD if "<" not in t] + [
        "The quick brown fox jumps over the lazy dog.", "It's the end of the world as we know it, and I feel fine.",
        "In 2023, 1,234 people said: \"we'll see\".", "for (int i = 0; i < 10; ++i) { sum += values[i]; }\n",
        "Die Übung macht den Meister. Ça va très bien, merci.", "世界 你好 世界 天气 很好 今天"]
    return base * 3


def noise(count, seed):
    """Strings drawn from what matters: letters of scripts, marks, blanks, signs, bits of special tokens."""
    rng = random.Random(seed)
    bits = [c for t in HARD for c in t] + ["<s>", "<|im_end|>", "word", " the", "ing", "'s", "\r\n", "  ", "e\u0301", "<lr>", "<l>", "<r>"]
    return ["".join(rng.choice(bits) for _ in range(rng.randint(1, 60))) for _ in range(count)]


class Program:
    def __init__(self, path):
        self.path = path

    def lines(self, tokenizer, values, *flags):
        text = "".join(json.dumps(v) + "\n" for v in values)
        run = subprocess.run([self.path, "tokenize", "--tokenizer", str(tokenizer), "--jsonl", *flags], input=text.encode(), capture_output=True)
        if run.returncode != 0:
            raise SystemExit(f"{tokenizer} {flags}: exit code {run.returncode}: {run.stderr.decode()}")
        return [json.loads(line) for line in run.stdout.decode().split("\n")[:-1]]


class Tally:
    def __init__(self):
        self.failed = 0

    def compare(self, name, inputs, ours, theirs):
        wrong = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        total = sum(len(x) for x in theirs)
        lengths_differ = len(ours) != len(theirs)
        print(f"{'FAIL' if wrong or lengths_differ else 'ok  '} {name}: {len(theirs)} strings, {total} {'characters' if theirs and isinstance(theirs[0], str) else 'ids'}"
              f", {len(wrong)} differ")
        for i in wrong[:3]:
            print(f"       {ascii(inputs[i])[:200]}\n         ours   {ascii(ours[i])[:300]}\n         theirs {ascii(theirs[i])[:300]}")
        self.failed += bool(wrong) or lengths_differ


def check_json(program, tally, name, path, texts):
    file = path / "tokenizer.json" if path.is_dir() else path
    peer = Tokenizer.from_file(str(file))
    for special in (True, False):
        ids = [e.ids for e in peer.encode_batch(texts, add_special_tokens=special)]
        tally.compare(f"{name} encode special={special}", texts, program.lines(path, texts, *([] if special else ["--no-special-tokens"])), ids)
        tally.compare(f"{name} decode skip={special}", ids, program.lines(path, ids, "--decode", *(["--skip-special-tokens"] if special else [])),
                      [peer.decode(i, skip_special_tokens=special) for i in ids])


# -- vocabularies made here ---------------------------------------------------

def trained(work, name, model, trainer_class, *, normalizer=None, pre=None, decoder=None, post=None, added=(), vocab_size=700, **trainer):
    tok = Tokenizer(model)
    tok.normalizer, tok.pre_tokenizer, tok.decoder = normalizer, pre, decoder
    tok.train_from_iterator(corpus(), trainer_class(vocab_size=vocab_size, show_progress=False, **trainer))
    tok.add_tokens([t for t in added if not t.special])
    tok.add_special_tokens([t for t in added if t.special])
    if post:
        tok.post_processor = post(tok)
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    return folder


def template(tok):
    return processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", tok.token_to_id("<s>")), ("</s>", tok.token_to_id("</s>"))])


SPECIAL = [AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")]
STRIPPING = [AddedToken("<l>", lstrip=True, special=True, normalized=False), AddedToken("<r>", rstrip=True, special=True, normalized=False),
             AddedToken("<lr>", lstrip=True, rstrip=True, normalized=True), AddedToken("word", single_word=True, normalized=True), AddedToken("<W>", normalized=True)]
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def made_vocabularies(work):
    level = lambda **k: pre_tokenizers.ByteLevel(add_prefix_space=False, **k)  # noqa: E731
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte = dict(trainer_class=trainers.BpeTrainer, decoder=decoders.ByteLevel(), initial_alphabet=alphabet)
    split = lambda p: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated"), level(use_regex=False)])  # noqa: E731
    yield trained(work, "gpt2", models.BPE(), pre=level(), post=lambda t: processors.ByteLevel(trim_offsets=False), added=SPECIAL, **byte)
    yield trained(work, "gpt2_prefix", models.BPE(), pre=pre_tokenizers.ByteLevel(add_prefix_space=True), added=SPECIAL + STRIPPING, **byte)
    yield trained(work, "llama3", models.BPE(ignore_merges=True), pre=split(LLAMA3), post=lambda t: processors.Sequence([processors.ByteLevel(), template(t)]), added=SPECIAL, **byte)
    yield trained(work, "qwen2", models.BPE(), normalizer=normalizers.NFC(), pre=split(LLAMA3.replace("{1,3}", "")), added=SPECIAL + STRIPPING, **byte)
    yield trained(work, "tekken", models.BPE(), pre=split(TEKKEN), added=SPECIAL, **byte)
    yield trained(work, "smollm", models.BPE(), pre=pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level()]), added=SPECIAL, **byte)
    yield trained(work, "deepseek3", models.BPE(), pre=pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
                             "isolated"), level(use_regex=False)]), added=SPECIAL, **byte)
    yield trained(work, "bloom", models.BPE(), pre=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"), "isolated"), level(use_regex=False)]),
                  added=SPECIAL, **byte)
    yield trained(work, "falcon", models.BPE(), pre=pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), level(), pre_tokenizers.Digits(False),
                  pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), added=SPECIAL, **byte)
    plain = dict(trainer_class=trainers.BpeTrainer)
    sp_decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    fallback = lambda **k: models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>", **k)  # noqa: E731
    yield trained(work, "llama2_legacy", fallback(), normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), decoder=sp_decoder,
                  post=template, special_tokens=["<unk>", "<s>", "</s>", *BYTES], added=SPECIAL + STRIPPING, **plain)
    for scheme, cut in itertools.product(("first", "always", "never"), (True, False)):
        yield trained(work, f"metaspace_{scheme}_{cut}", fallback(), pre=pre_tokenizers.Metaspace(prepend_scheme=scheme, split=cut), decoder=decoders.Metaspace(prepend_scheme=scheme),
                      post=template, special_tokens=["<unk>", "<s>", "</s>", *BYTES], added=SPECIAL + STRIPPING, **plain)
    yield trained(work, "gemma", fallback(), normalizer=normalizers.Replace(" ", "▁"), pre=pre_tokenizers.Split(" ", "merged_with_previous"),
                  decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), special_tokens=["<unk>", *BYTES], added=SPECIAL, **plain)
    for fuse in (True, False):
        yield trained(work, f"unknown_{fuse}", models.BPE(unk_token="<unk>", fuse_unk=fuse), normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]),
                      pre=pre_tokenizers.Whitespace(), special_tokens=["<unk>"], limit_alphabet=60, added=SPECIAL + STRIPPING, **plain)
    yield trained(work, "affixes", models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix="##"), normalizer=normalizers.NFKD(), pre=pre_tokenizers.WhitespaceSplit(),
                  decoder=decoders.BPEDecoder(), special_tokens=["<unk>"], end_of_word_suffix="</w>", continuing_subword_prefix="##", added=SPECIAL, **plain)
    for behavior, invert in itertools.product(("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"), (False, True)):
        yield trained(work, f"split_{behavior}_{invert}", models.BPE(unk_token="<unk>"), normalizer=normalizers.NFD(), pre=pre_tokenizers.Split(Regex(r"[\s\d]|\w\b"), behavior, invert),
                      special_tokens=["<unk>"], added=SPECIAL, **plain)
    for fallback_bytes in (True, False):
        name = f"unigram_{fallback_bytes}"
        folder = trained(work, name, models.Unigram(), trainers.UnigramTrainer, normalizer=normalizers.NFKC(), pre=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace(),
                         unk_token="<unk>", special_tokens=["<unk>", *(BYTES if fallback_bytes else [])], added=SPECIAL, vocab_size=900)
        document = json.loads((folder / "tokenizer.json").read_text())
        document["model"]["byte_fallback"] = fallback_bytes
        (folder / "tokenizer.json").write_text(json.dumps(document))
        yield folder


# -- sentencepiece -----------------------------------------------------------

def check_sentencepiece(program, tally, name, file, texts, work):
    """The .model alone, then with configs: legacy or not, with and without a prefix."""
    import sentencepiece as spm
    proto = spm.SentencePieceProcessor(model_file=str(file))
    texts = [t for t in texts if "\0" not in t]  # the C string interface of the package stops there
    control = [proto.id_to_piece(i) for i in range(proto.get_piece_size()) if proto.is_control(i)] + [proto.id_to_piece(proto.unk_id())]

    from sentencepiece import sentencepiece_model_pb2 as pb
    raw = pb.ModelProto()
    raw.ParseFromString(pathlib.Path(file).read_bytes())

    def processor(prefix):
        copy = pb.ModelProto()
        copy.CopyFrom(raw)
        copy.normalizer_spec.add_dummy_prefix = prefix and raw.normalizer_spec.add_dummy_prefix
        return spm.SentencePieceProcessor(model_proto=copy.SerializeToString())

    def expected(text, legacy, prefixed, plain, bos):
        ids = [proto.bos_id()] if bos and proto.bos_id() >= 0 else []
        position = 0
        while position < len(text):
            hits = [(text.find(c, position), -len(c), c) for c in control if text.find(c, position) >= 0]
            start, _, token = min(hits) if hits else (len(text), 0, None)
            if start > position:
                ids += (prefixed if legacy or position == 0 else plain).encode(text[position:start])
            if token:
                ids.append(proto.piece_to_id(token))
            position = start + len(token or "")
        return ids

    def decoded(ids, prefixed, plain):
        """What is unknown reads as its piece, as in transformers (where sentencepiece has a question mark); only the text's first blank is the prefix."""
        runs = [list(run) for is_unknown, run in itertools.groupby(ids, lambda i: i == proto.unk_id()) for run in (([i] for i in run) if is_unknown else [run])]
        return "".join(proto.id_to_piece(run[0]) if run[0] == proto.unk_id() else (plain if i else prefixed).decode(run) for i, run in enumerate(runs))

    for config in (None, {}, {"legacy": False}, {"legacy": False, "add_prefix_space": False}, {"legacy": True, "add_bos_token": False}):
        path = pathlib.Path(file)
        if config is not None:
            path = work / f"{name}_{'_'.join(f'{k}{v}' for k, v in config.items())}"
            path.mkdir(parents=True, exist_ok=True)
            (path / "tokenizer.model").write_bytes(pathlib.Path(file).read_bytes())
            (path / "tokenizer_config.json").write_text(json.dumps(config))
        config = config or {}
        prefixed, plain = processor(config.get("add_prefix_space", True)), processor(False)
        legacy, bos = config.get("legacy", True), config.get("add_bos_token", True)
        want = [expected(t, legacy, prefixed, plain, bos) for t in texts]
        tally.compare(f"{name} {config} encode", texts, program.lines(path, texts), want)
        if config == {} and path.is_file():
            clean = [t for t in texts if not any(c in t for c in control)]
            ids = [proto.encode(t) for t in clean]
            tally.compare(f"{name} decode", ids, program.lines(path, ids, "--decode"), [decoded(i, prefixed, plain) for i in ids])


def made_sentencepiece(work):
    import sentencepiece as spm
    for kind, fallback in itertools.product(("bpe", "unigram"), (True, False)):
        prefix = work / f"spm_{kind}_{fallback}"
        spm.SentencePieceTrainer.train(sentence_iterator=iter([t for t in corpus() if t.strip() and "\0" not in t]), model_prefix=str(prefix), model_type=kind, vocab_size=520 if fallback else 330,
                                       byte_fallback=fallback, hard_vocab_limit=False, character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False,
                                       user_defined_symbols=["<W>", "word"], control_symbols=["<|im_end|>"], minloglevel=2)
        yield f"spm_{kind}_{fallback}", f"{prefix}.model"


# -- GGUF ----------------------------------------------------------------------

def check_gguf(program, tally, file, texts, work):
    """Against transformers' own reading of the file, where its pre-tokenizer is right, and against the files we write from it."""
    from transformers import AutoTokenizer
    out = work / ("written_" + pathlib.Path(file).stem)
    subprocess.run([program.path, "tokenize", "--tokenizer", str(file), "--write-files", str(out)], check=True, input=b"", stdout=subprocess.DEVNULL)
    written = AutoTokenizer.from_pretrained(str(out))
    for special in (True, False):
        ours = program.lines(file, texts, *([] if special else ["--no-special-tokens"]))
        tally.compare(f"{file} written files, AutoTokenizer special={special}", texts, ours, written(texts, add_special_tokens=special)["input_ids"])
    tally.compare(f"{file} decode", ours, program.lines(file, ours, "--decode"), [written.decode(i, clean_up_tokenization_spaces=False) for i in ours])
    direct = AutoTokenizer.from_pretrained(str(pathlib.Path(file).parent), gguf_file=pathlib.Path(file).name)
    plain = [t for t in texts if not any(c.isnumeric() for c in t)]  # transformers does not cut digits one by one for GGUF files
    tally.compare(f"{file} AutoTokenizer(gguf_file), text without digits", plain, program.lines(file, plain, "--no-special-tokens"),
                  direct(plain, add_special_tokens=False)["input_ids"])
    print(f"     chat template equal: {written.chat_template == direct.chat_template}, eos {written.eos_token!r}, length {len(written)}")
    tally.failed += written.chat_template != direct.chat_template


def check_llamacpp(program, tally, inp, folder):
    """llama.cpp's vocabulary vectors: texts between __ggml_vocab_test__ lines, a line of ids each."""
    texts = pathlib.Path(inp).read_text(encoding="utf-8", newline="").split("\n__ggml_vocab_test__\n")
    want = [[int(i) for i in line.split()] for line in pathlib.Path(inp[:-4] + ".out").read_text().split("\n")][:len(texts)]
    tally.compare(f"{inp}", texts, program.lines(folder, texts, "--no-special-tokens"), want)


def strings_of(path):
    def walk(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from itertools.chain.from_iterable(map(walk, value.values()))
        elif isinstance(value, list):
            yield from itertools.chain.from_iterable(map(walk, value))
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if path.endswith(".jsonl"):
        return [s for line in text.split("\n") if line.strip() for s in walk(json.loads(line))]
    if path.endswith(".json"):
        return list(walk(json.loads(text)))
    return [text] + text.splitlines()


def measure(program, path, file):
    """Megabytes a second on one thread; the program's own time to start and read the tokenizer is taken off."""
    text = pathlib.Path(file).read_text(encoding="utf-8")
    lines = [json.dumps(text)] * 8
    def seconds(count):
        start = time.perf_counter()
        subprocess.run([program.path, "tokenize", "--tokenizer", str(path), "--jsonl", "--no-special-tokens"], input="\n".join(lines[:count]).encode(), stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start
    megabytes = len(text.encode()) / 1e6
    ours = min(seconds(8) for _ in range(3)) - min(seconds(1) for _ in range(3))
    peer = Tokenizer.from_file(str(path / "tokenizer.json"))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(7):
            peer.encode(text, add_special_tokens=False)
        best = min(best, time.perf_counter() - start)
    print(f"speed {path}: {7 * megabytes / ours:.2f} MB/s here (with JSON in and out), {7 * megabytes / best:.2f} MB/s tokenizers {tokenizers.__version__}, one thread each")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="build/bin/qlora")
    parser.add_argument("--work")
    for name in ("json", "model", "gguf", "llamacpp", "text", "speed"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("--skip-made", action="store_true", help="only the paths given")
    args = parser.parse_args()
    work = pathlib.Path(args.work or tempfile.mkdtemp())
    program, tally = Program(args.program), Tally()
    texts = HARD + noise(300, 1) + ["\n".join(HARD)] + list(itertools.chain.from_iterable(map(strings_of, args.text)))
    if not args.skip_made:
        for folder in made_vocabularies(work):
            check_json(program, tally, folder.name, folder, HARD + noise(300, 2))
        for name, file in made_sentencepiece(work):
            check_sentencepiece(program, tally, name, file, HARD + noise(300, 3), work)
    for path in args.json:
        check_json(program, tally, path, pathlib.Path(path), texts)
    for path in args.model:
        check_sentencepiece(program, tally, pathlib.Path(path).parent.name, path, texts, work)
    for path in args.gguf:
        check_gguf(program, tally, path, texts, work)
    for pair in args.llamacpp:
        check_llamacpp(program, tally, *pair.split("="))
    for pair in args.speed:
        measure(program, pathlib.Path(pair.split("=")[0]), pair.split("=")[1])
    print(f"{tally.failed} comparisons failed")
    sys.exit(tally.failed > 0)


main()
