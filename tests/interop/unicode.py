#!/usr/bin/env python3
"""Token ids against the package tokenizers for every code point: classes, scripts and named sets of regular expressions, normal forms,
lower case, digits, punctuation, words; and for made texts: intervals and options of regular expressions, white space around added tokens, characters that a vocabulary lacks.

# make interop: "$PYTHON" tests/interop/unicode.py --program "$QLORA" --work "$WORK"

Ran with tokenizers 0.23.3, which data/tokenizers/unicode_tables.cpp was made with; another version may know other characters.
"""

import argparse
import itertools
import json
import pathlib
import random
import re
import subprocess

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
POSIX = "alpha alnum word punct upper graph print space blank cntrl digit xdigit ascii".split()
SETS = "Alnum Alpha Graph Print Blank Upper Uppercase Punct PosixPunct Cntrl Digit Space XDigit ASCII Any Assigned Letter Cased_Letter".split()
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()


def cut_shower(pre_tokenizer):
    """Its ids tell whether a piece ends behind an 'a'."""
    model = models.BPE(vocab={"<unk>": 0, "a": 1, "a</w>": 2}, merges=[], unk_token="<unk>", end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def byte_shower(normalizer):
    """Its ids are the bytes of the normalized text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def class_pattern(members):
    return pre_tokenizers.Split(Regex(f"a?[{members}]|a"), "isolated")


def piece_shower(pattern):
    """Its ids tell the pieces: the model marks the end of each."""
    alphabet = "abBcz-{}, 13\n"
    vocab = {letter + end: 2 * i + bool(end) for i, letter in enumerate(alphabet) for end in ("", "</w>")}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return tokenizer


def every_code_point(pattern="a{}", size=4096):
    return ["".join(pattern.replace("{}", chr(code)) for code in CODES[begin : begin + size]) + "a" for begin in range(0, len(CODES), size)]


def marked_texts(rng, count):
    """Letters, marks and Hangul in any order, also such as compose over a blocked mark."""
    pool = [chr(c) for c in CODES if c < 0x3200 or 0xA000 <= c < 0xB000 or 0xF900 <= c < 0x10000]
    marks = [chr(c) for c in (*range(0x300, 0x370), *range(0x591, 0x5C0), *range(0x900, 0x970), 0x1100, 0x1161, 0x11A8, 0x3099)]
    return ["".join(rng.choice(marks if rng.random() < 0.6 else pool) for _ in range(rng.randint(1, 30))) for _ in range(count)]


def script_names():
    """All that data/tokenizers/unicode_tables.cpp has characters of."""
    tables = pathlib.Path(__file__).parents[2] / "data/tokenizers/unicode_tables.cpp"
    return re.findall(r'\{"(\w+)", "\w+"\}', tables.read_text())


def jobs(rng):
    for bit in range(5):
        chosen = "".join(rf"\p{{{name}}}" for number, name in enumerate(CATEGORIES) if number >> bit & 1)
        yield f"categories, bit {bit}", cut_shower(class_pattern(chosen)), every_code_point()
    names = script_names()
    for bit in range(8):
        chosen = "".join(rf"\p{{{name}}}" for number, name in enumerate(names) if number >> bit & 1)
        yield f"scripts, bit {bit}", cut_shower(class_pattern(chosen)), every_code_point()
    for single in (r"\w", r"\p{Han}", r"\P{Han}", r"\p{Katakana}", r"\p{kana}", r"\p{^Thai}", r"[^\p{Latin}]", r"[\P{Hiragana}\p{Latin}]", r"\W"):
        yield single, cut_shower(pre_tokenizers.Split(Regex(f"a?{single}|a"), "isolated")), every_code_point()
    for name in POSIX:
        for members in (f"[:{name}:]", f"[:^{name}:]", f"^[:{name}:]", rf"\s[:{name}:]\p{{Lm}}"):
            yield f"[{members}]", cut_shower(class_pattern(members)), every_code_point()
    singles = [rf"\{letter}{{{name}}}" for name in SETS for letter in "pP"]
    for single in (*singles, r"\v", r"\R", r"\N", r"\O", r"(?m:.)", r"[\W]", r"[\u0041-\u0870]", r"(?i:\p{Lu})", r"(?i:[^\s\d])", r"(?i:[k-s])",
                   r"(?i:é)", r"(?i:д)", r"(?i:s)", r"(?i:å)", r"(?i:ÿ)", r"(?i:[вт])", r"(?i:[^k-s])", r"[\D\h]", r"[\s\S]"):
        yield single, cut_shower(pre_tokenizers.Split(Regex(f"a?{single}|a"), "isolated")), every_code_point()
    for members in (r"\p{Alphabetic}", r"\p{Han}", r"\w", r"\s", r"\d", r"\p{L}一-龥ࠀ-一가-퟿"):
        yield f"[{members}]", cut_shower(class_pattern(members)), every_code_point()
    for pattern in (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)|\s+", r"\b"):
        yield pattern, cut_shower(pre_tokenizers.Split(Regex(pattern), "isolated")), every_code_point()
    yield r"(.)\1", cut_shower(pre_tokenizers.Split(Regex(r"a?(.)\1|a"), "isolated")), every_code_point("a{}{}a{}\u0558a{}\U0001FADC")
    for name in ("Digits", "Punctuation", "Whitespace", "WhitespaceSplit"):
        yield name, cut_shower(getattr(pre_tokenizers, name)()), every_code_point()
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield name, byte_shower(getattr(normalizers, name)()), every_code_point("{}a\u0323\u0301{}\u0334") + marked_texts(rng, 3000)
    single = byte_shower(None)
    single.add_tokens([AddedToken("[T]", single_word=True, normalized=False)])
    yield "single_word", single, every_code_point("{}[T]{} [T]")
    for pattern in (r"ab{,3}", r"ab{,3}?", r"b{, 3}", r"b{1, 3}", r"b{,}", r"b{2,3}?", r"(?m)a(?-m:.)", r"[[a-]z]+", r"[[ab]-z]+", r"x|(?i)b|C"):
        yield pattern, piece_shower(pattern), ["".join(rng.choice("aabbBcz-{}, 13\n") for _ in range(40)) for _ in range(100)]
    yield from added_token_jobs(rng)
    yield from unknown_jobs(rng)


def added_token_jobs(rng):
    """Tokens that swallow white space, side by side and with white space of their own."""
    contents = ["<x>", "<xy>", "<z>", " <s", "  ", "\n", "<q> "]
    parts = [*contents, " ", "  ", "\t", "\n", "b", "<", "\u3000"]
    for number in range(40):
        tokenizer = byte_shower(None)
        tokenizer.add_tokens([AddedToken(content, lstrip=rng.random() < 0.5, rstrip=rng.random() < 0.5, single_word=rng.random() < 0.2,
                                         normalized=rng.random() < 0.3, special=False) for content in rng.sample(contents, 4)])
        texts = ["".join(rng.choice(parts) for _ in range(rng.randint(1, 12))) for _ in range(300)]
        yield f"added tokens {number}", tokenizer, texts


def unknown_jobs(rng):
    texts = ["".join(rng.choice("abcé世🥰 ") for _ in range(rng.randint(1, 12))) for _ in range(300)]
    for fuse, fallback, unknown in itertools.product((False, True), (False, True), ("<unk>", None)):
        vocab = {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "c": 4}
        if fallback:
            vocab |= {f"<0x{byte:02X}>": 5 + byte for byte in range(256)}
        for partial in (False, True) if fallback else (False,):
            kept = {token: i for i, (token, _) in enumerate(vocab.items()) if not partial or token != "<0xC3>"}
            kept = {token: i for i, token in enumerate(kept)}
            tokenizer = Tokenizer(models.BPE(vocab=kept, merges=[("a", "b")], unk_token=unknown, fuse_unk=fuse, byte_fallback=fallback))
            yield f"BPE fuse_unk={fuse} byte_fallback={fallback} partial={partial} unk={unknown}", tokenizer, texts
    for fallback in (False, True):
        pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0), ("ab", -2.5), ("c", -3.0)]
        if fallback:
            pieces += [(f"<0x{byte:02X}>", -10.0) for byte in range(256)]
        yield f"Unigram byte_fallback={fallback}", Tokenizer(models.Unigram(pieces, 0, fallback)), texts


def ids_of_program(program, path, texts):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run([program, "tokenize", "--tokenizer", path, "--jsonl"], input=lines, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{path}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def ids_of_package(tokenizer, text):
    """None where the package panics: tokens that begin in white space which the one before them swallowed."""
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


def first_difference(text, ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    shown = text if len(text) < 80 else f"a text from U+{ord(max(text[0], text[1])):04X} on"
    return f"{shown!r}: id {at} is {ours[at : at + 8]}, must be {theirs[at : at + 8]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--work", required=True)
    options = parser.parse_args()
    failed = 0
    for number, (name, tokenizer, texts) in enumerate(jobs(random.Random(14))):
        path = str(pathlib.Path(options.work) / f"{number}.json")
        tokenizer.save(path)
        ours = ids_of_program(options.program, path, texts)
        theirs = [ids_of_package(tokenizer, text) for text in texts]
        different = [i for i in range(len(texts)) if theirs[i] is not None and ours[i] != theirs[i]]
        if different:
            failed += 1
            i = min(different, key=lambda j: len(texts[j]))
            print(f"FAILED {name}: {len(different)} of {len(texts)} texts; {first_difference(texts[i], ours[i], theirs[i])}")
        elif not name.startswith("added tokens"):
            print(f"equal  {name}: {len(texts)} texts, {sum(map(len, ours))} ids")
    print(f"{failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
