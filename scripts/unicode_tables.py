#!/usr/bin/env python3
"""Writes the character tables that the program carries, so that ids do not depend on a distribution's libraries.

    unicode_tables.py tokenizers > data/tokenizers/unicode_tables.cpp    asks the package tokenizers
    unicode_tables.py python     > data/jinja/python_text_tables.cpp     asks the Python that runs it

What counts as right is what these two do, and they do not agree on a version of Unicode: each part of tokenizers carries
tables of its own. So every code point is put to them. What the scripts are called, Perl is asked for.
"""

import subprocess
import sys
import unicodedata

CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
# Later than Perl 5.36, with their short names.
SCRIPTS_SINCE_14 = {"Garay": "Gara", "Gurung_Khema": "Gukh", "Kawi": "Kawi", "Kirat_Rai": "Krai", "Nag_Mundari": "Nagm",
                    "Ol_Onal": "Onao", "Sunuwar": "Sunu", "Todhri": "Todr", "Tulu_Tigalari": "Tutg"}
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
ALPHABETIC = 0x20  # beside a category's number: data/tokenizers/unicode_tables.h


def runs_of(values):
    """[(first code, value)] of a list over CODES; surrogates count with what stands before them."""
    runs = []
    for code, value in zip(CODES, values):
        if not runs or runs[-1][1] != value:
            runs.append((code, value))
    return runs


def print_array(declaration, items):
    print(f"{declaration} = {{")
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 118:
            print(line)
            line = "   "
        line += f" {item},"
    print(line + "\n};\n")


def print_runs(name, values):
    print_array(f"constexpr Run k{name}Runs[]", [f"{{0x{code:X}, {value}}}" for code, value in runs_of(values)])
    print(f"const std::span<const Run> k{name} = k{name}Runs;\n")


def print_texts(name, texts):
    """texts: {code: string}. A pool of code points, and where each text stands in it."""
    pool, places, entries = [], {}, []
    for code, text in sorted(texts.items()):
        if text not in places:
            places[text] = len(pool)
            pool += [ord(character) for character in text]
        entries.append(f"{{0x{code:X}, {places[text]}, {len(text)}}}")
    print_array(f"constexpr char32_t k{name}Pool[]", [f"0x{code:X}" for code in pool])
    print_array(f"constexpr Place k{name}Places[]", entries)
    print(f"const Texts k{name} = {{k{name}Pool, k{name}Places}};\n")


def matched(pattern):
    """The code points that a regular expression of tokenizers takes."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(pattern + "+"), "removed", invert=True)
    found = set()
    for begin in range(0, len(CODES), 1 << 16):
        text = "".join(map(chr, CODES[begin : begin + (1 << 16)]))
        for piece, _ in split.pre_tokenize_str(text):
            found.update(map(ord, piece))
    return found


def classes():
    values = dict.fromkeys(CODES, None)
    for number, name in enumerate(CATEGORIES):
        for code in matched(rf"\p{{{name}}}"):
            assert values[code] is None, hex(code)
            values[code] = number
    for code in matched(r"\p{Alphabetic}"):
        values[code] |= ALPHABETIC
    return [values[code] for code in CODES]


def script_names():
    """{name: short name} of the scripts that have characters. Unknown is first: all other code points have it."""
    script = r"print join(q( ), prop_value_aliases(q(sc), $_)), qq(\n) for prop_values(q(sc))"
    lines = subprocess.run(["perl", "-MUnicode::UCD=prop_values,prop_value_aliases", "-e", script], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    known = {words[1]: words[0] for words in map(str.split, lines) if words} | SCRIPTS_SINCE_14
    without = {"Unknown", "Katakana_Or_Hiragana"}  # the second has no character
    return {"Unknown": "Zzzz"} | {name: known[name] for name in sorted(known) if name not in without}


def print_scripts():
    names = script_names()
    scripts = dict.fromkeys(CODES, 0)
    for bit in range(8):  # of a script's number: each code point has one script
        by_name, by_alias = (matched("[" + "".join(rf"\p{{{name}}}" for number, name in enumerate(spelled) if number >> bit & 1) + "]")
                             for spelled in (names, names.values()))
        assert by_name == by_alias
        for code in by_name:
            scripts[code] |= 1 << bit
    assert {code for code in CODES if scripts[code] == 0} == matched(r"\p{Unknown}")
    print_runs("Scripts", [scripts[code] for code in CODES])
    print_array("constexpr ScriptName kNames[]", [f'{{"{name}", "{alias}"}}' for name, alias in names.items()])
    print("const std::span<const ScriptName> kScriptNames = kNames;\n")


def combining_class(code, nfd):
    """0 where the normalizer does not know the character to combine."""
    number = unicodedata.combining(chr(code))
    if number == 0:
        return 0
    # Behind one of a higher class it moves to the front of that.
    text = f"a{chr(code)}\u0334" if number > 1 else f"a\u0323{chr(code)}"  # of class 1, of class 220
    return number if nfd(text) != text else 0


def composed_pairs(nfc):
    pairs = {}
    for code in CODES:
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        first, second = (int(part, 16) for part in parts)
        if nfc(chr(first) + chr(second)) == chr(code):
            pairs[first, second] = code
    return pairs


def print_tokenizers():
    import tokenizers
    from tokenizers import normalizers, pre_tokenizers

    nfd, nfkd, nfc = (getattr(normalizers, form)().normalize_str for form in ("NFD", "NFKD", "NFC"))
    lower = normalizers.Lowercase().normalize_str
    digits = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str
    punctuation = pre_tokenizers.Punctuation().pre_tokenize_str
    hangul = range(0xAC00, 0xD7A4)
    print(f"""// Made by scripts/unicode_tables.py with tokenizers {tokenizers.__version__}: every code point put to that package.
// clang-format off
#include "data/tokenizers/unicode_tables.h"

namespace qlora::data::unicode_tables {{
""")
    print_runs("Classes", classes())
    print_scripts()
    print_runs("Numbers", [int(len(digits(f"a{chr(code)}a")) == 3) for code in CODES])
    print_runs("Punctuation", [int(len(punctuation(f"a{chr(code)}a")) == 3) for code in CODES])
    print_runs("CombiningClasses", [combining_class(code, nfd) for code in CODES])
    canonical, compatible, lowered = {}, {}, {}
    for code in CODES:
        character = chr(code)
        if code not in hangul and nfd(character) != character:
            canonical[code] = nfd(character)
        if code not in hangul and nfkd(character) != nfd(character):
            compatible[code] = nfkd(character)
        if lower(character) != character:
            lowered[code] = lower(character)
    print_texts("Canonical", canonical)
    print_texts("Compatible", compatible)
    print_texts("Lower", lowered)
    pairs = sorted(composed_pairs(nfc).items())
    print_array("constexpr Pair kPairs[]", [f"{{0x{a:X}, 0x{b:X}, 0x{both:X}}}" for (a, b), both in pairs if both not in hangul])
    print("const std::span<const Pair> kComposed = kPairs;\n\n}  // namespace qlora::data::unicode_tables")


def print_python():
    properties = [str.isalpha, str.isdecimal, str.isdigit, str.isnumeric, str.islower, str.isupper, str.isprintable,
                  lambda character: character.istitle() and not character.isupper()]
    print(f"""// Made by scripts/unicode_tables.py with Python {sys.version.split()[0]} (Unicode {unicodedata.unidata_version}).
// clang-format off
#include "data/jinja/python_text_tables.h"

namespace qlora::data::jinja::python_text_tables {{

using unicode_tables::Place;
using unicode_tables::Run;
using unicode_tables::Texts;
""")
    print_runs("Properties", [sum(holds(chr(code)) << bit for bit, holds in enumerate(properties)) for code in CODES])
    print_runs("CaseIgnorable", [int(is_ignorable(chr(code))) for code in CODES])
    for name, convert in (("Upper", str.upper), ("Lower", str.lower), ("Title", str.title)):
        print_texts(name, {code: convert(chr(code)) for code in CODES if convert(chr(code)) != chr(code)})
    print("}  // namespace qlora::data::jinja::python_text_tables")


def is_ignorable(character):
    """Whether str.lower() looks past it for letters around a sigma: behind none there is no final one, behind 'a' there is."""
    return (character + "\u03a3").lower()[-1] == "\u03c3" and ("a" + character + "\u03a3").lower()[-1] == "\u03c2"


if __name__ == "__main__":
    if sys.argv[1:] == ["tokenizers"]:
        print_tokenizers()
    elif sys.argv[1:] == ["python"]:
        print_python()
    else:
        sys.exit(__doc__)
