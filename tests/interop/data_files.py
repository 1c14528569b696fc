#!/usr/bin/env python3
"""One table written by the libraries that people write data sets with, read by `qlora inspect data`: equal ids and masks.

# make interop: "$PYTHON" tests/interop/data_files.py --program "$QLORA" --work "$WORK"

Chat rows with nested lists of messages and tools, rows of prompt and completion, and rows of ids are written as CSV, TSV, JSON,
JSON Lines, Parquet (each codec, row groups, dictionaries, pages of both versions), Arrow files and streams, folders of save_to_disk,
and packed with gzip and Zstandard. What each file holds must come to the ids and masks that the rows in plain JSON Lines, written by
Python's json, come to. Libraries that are not installed are named and left out.

Ran with pyarrow 26.0.1, pandas 3.1.1, datasets 5.2.0, zstandard 0.25.0, Python 3.11.
"""

import argparse
import csv
import gzip
import importlib
import io
import json
import pathlib
import random

import data_masks

LIBRARIES = {}
for name in ("pyarrow", "pandas", "datasets", "zstandard"):
    try:
        LIBRARIES[name] = importlib.import_module(name)
    except ImportError:
        pass


def tables():
    """name -> (format, rows, columns that hold lists or objects)."""
    random.seed(3)
    texts = data_masks.TEXTS + ['quotes " and \\ in it', "a,b;c\td", "two\nlines\r\nthree", "'single'", "null", "[1, 2]", "007"]
    text = lambda: " ".join(random.choices(texts, k=random.randint(1, 3)))
    call = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
    chat, completion, ids = [], [], []
    for i in range(40):
        messages = [{"role": "user", "content": text()}]
        if i % 3 == 0:
            messages += [{"role": "assistant", "content": "", "tool_calls": [call]},
                         {"role": "tool", "content": text(), "tool_call_id": "call00001", "name": "weather"}]
        messages += [{"role": "assistant", "content": text(), "weight": 1}, {"role": "user", "content": text()},
                     {"role": "assistant", "content": text(), "weight": i % 2}]
        chat.append({"messages": messages, "system": random.choice(["", text()])} | ({"tools": [data_masks.WEATHER]} if i % 3 == 0 else {}))
        completion.append({"prompt": text() + "\nAnswer:", "completion": " " + text()})
        numbers = [random.randrange(300, 380) for _ in range(random.randint(2, 9))]
        ids.append({"input_ids": numbers, "labels": [-100] + numbers[1:]})
    return {"chat": ("chat", chat, {"messages", "tools"}), "completion": ("completion", completion, set()),
            "ids": ("pretokenized", ids, {"input_ids", "labels"})}


def columns_of(rows):
    return list(dict.fromkeys(key for row in rows for key in row))


def cells_of(rows, nested):
    """Each row as texts: what is nested as JSON."""
    names = columns_of(rows)
    return names, [["" if name not in row else json.dumps(row[name], ensure_ascii=False) if name in nested else row[name] for name in names] for row in rows]


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table_text(rows, nested, **dialect):
    file = io.StringIO(newline="")
    names, cells = cells_of(rows, nested)
    csv.writer(file, **dialect).writerows([names, *cells])
    return file.getvalue()


def write_plain(folder, rows, nested):
    """By Python's own modules."""
    (folder / "array.json").write_text(json.dumps(rows, indent=1))
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(lines_of(rows).encode()))
    (folder / "two_members.jsonl.gz").write_bytes(b"".join(gzip.compress(lines_of(part).encode()) for part in (rows[:7], rows[7:])))
    for name, dialect in {"comma.csv": {}, "all_quoted.csv": {"quoting": csv.QUOTE_ALL}, "unix.csv": {"lineterminator": "\n"}, "tab.tsv": {"delimiter": "\t"}}.items():
        (folder / name).write_bytes(table_text(rows, nested, **dialect).encode())
    (folder / "bom.csv").write_bytes(b"\xef\xbb\xbf" + table_text(rows, nested).encode())
    (folder / "packed.csv.gz").write_bytes(gzip.compress(table_text(rows, nested).encode()))
    (folder / "shards").mkdir()
    for i in range(3):
        (folder / "shards" / f"part-{i}.jsonl").write_text(lines_of(rows[i * 14: (i + 1) * 14]))


def write_zstandard(folder, rows, nested):
    compress = LIBRARIES["zstandard"].ZstdCompressor(level=3).compress
    (folder / "packed.jsonl.zst").write_bytes(compress(lines_of(rows).encode()))
    (folder / "packed.tsv.zst").write_bytes(compress(table_text(rows, nested, delimiter="\t").encode()))


def write_pandas(folder, rows, nested):
    pandas = LIBRARIES["pandas"]
    names, cells = cells_of(rows, nested)
    flat = pandas.DataFrame(cells, columns=names)
    flat.to_csv(folder / "pandas.csv", index=False)
    flat.to_csv(folder / "pandas_index.csv")
    flat.to_csv(folder / "pandas.tsv", sep="\t", index=False)
    flat.to_csv(folder / "pandas.csv.gz", index=False)
    frame = pandas.DataFrame(rows)
    frame.to_json(folder / "pandas.jsonl", orient="records", lines=True)
    frame.to_json(folder / "pandas_ascii.json", orient="records", force_ascii=True)
    if "pyarrow" in LIBRARIES:
        frame.to_parquet(folder / "pandas.parquet")
        frame.to_parquet(folder / "pandas_gzip.parquet", compression="gzip", index=False)


def write_pyarrow(folder, rows, nested):
    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.parquet

    arrow = LIBRARIES["pyarrow"]
    names = columns_of(rows)
    table = arrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    for codec in ("none", "snappy", "gzip", "brotli", "lz4", "zstd"):
        arrow.parquet.write_table(table, folder / f"{codec}.parquet", compression=codec)
    arrow.parquet.write_table(table, folder / "groups.parquet", row_group_size=7)
    arrow.parquet.write_table(table, folder / "no_dictionary.parquet", use_dictionary=False)
    arrow.parquet.write_table(table, folder / "pages2.parquet", data_page_version="2.0", data_page_size=256)
    arrow.parquet.write_table(table, folder / "format1.parquet", version="1.0")
    arrow.parquet.write_table(table, folder / "no_schema.parquet", store_schema=False)
    large = arrow.schema([arrow.field(field.name, arrow.large_string() if field.type == arrow.string() else field.type) for field in table.schema])
    arrow.parquet.write_table(table.cast(large), folder / "large.parquet")
    encoded = table
    for i, field in enumerate(table.schema):
        if field.type == arrow.string():
            encoded = encoded.set_column(i, field.name, encoded.column(i).dictionary_encode())
    arrow.parquet.write_table(encoded, folder / "dictionary.parquet")
    for codec in ("uncompressed", "lz4", "zstd"):
        arrow.feather.write_feather(table, folder / f"{codec}.feather", compression=codec)
    for name, open_writer in {"file.arrow": arrow.ipc.new_file, "stream.arrow": arrow.ipc.new_stream}.items():
        with open_writer(folder / name, encoded.schema) as writer:
            writer.write_table(encoded, max_chunksize=7)
    names, cells = cells_of(rows, nested)
    flat = arrow.table({name: [row[i] for row in cells] for i, name in enumerate(names)})
    arrow.csv.write_csv(flat, folder / "pyarrow.csv")


def write_datasets(folder, rows, nested):
    names = columns_of(rows)
    data = LIBRARIES["datasets"].Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
    data.save_to_disk(folder / "saved")
    data.save_to_disk(folder / "saved_in_shards", num_shards=3)
    data.select(range(len(rows))).flatten_indices().save_to_disk(folder / "flattened")
    data.to_parquet(folder / "datasets.parquet")
    data.to_json(folder / "datasets.jsonl")
    data.to_json(folder / "datasets_array.json", lines=False)


def examples_in(arguments, tokenizer, paths, form):
    """Of each file: rows, ids and masks. All files are data sets of one recipe."""
    template = pathlib.Path(arguments.work) / "template.jinja"
    template.write_text(data_masks.PLAIN_TOOLS)
    lines = data_masks.run(arguments, tokenizer, [path.resolve() for path in paths], form, {}, {"chat_template": str(template.resolve())})
    found = [[] for _ in paths]
    for value in map(json.loads, lines):
        if example := value.get("example"):
            found[example["source"]].append((example["row"], example["tokens"], example["supervised"]))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--sequence-length", type=int, default=4096)
    arguments = parser.parse_args()
    versions = [f"{name} {library.__version__}" if (library := LIBRARIES.get(name)) else f"no {name}" for name in ("pyarrow", "pandas", "datasets", "zstandard")]
    print(", ".join(versions))
    tokenizer = pathlib.Path(arguments.work) / "tokenizer"
    data_masks.small_tokenizer(tokenizer)
    writers = [write_plain] + [writer for name, writer in (("zstandard", write_zstandard), ("pandas", write_pandas), ("pyarrow", write_pyarrow), ("datasets", write_datasets)) if name in LIBRARIES]
    for name, (form, rows, nested) in tables().items():
        folder = pathlib.Path(arguments.work) / name
        folder.mkdir()
        (folder / "plain.jsonl").write_text(lines_of(rows))
        for writer in writers:
            writer(folder, rows, nested)
        paths = sorted(path for path in folder.iterdir() if path.name != "plain.jsonl")
        expected, *others = examples_in(arguments, tokenizer, [folder / "plain.jsonl", *paths], form)
        assert len(expected) >= len(rows)
        for path, got in zip(paths, others):
            differ = next((i for i, pair in enumerate(zip(got, expected)) if pair[0] != pair[1]), min(len(got), len(expected)))
            assert got == expected, f"{name}/{path.name}: {len(got)} examples of {len(expected)}; example {differ} is the first that differs"
        print(f"{name}: {len(paths)} files give the {len(expected)} examples of the rows in plain JSON Lines")


if __name__ == "__main__":
    main()
