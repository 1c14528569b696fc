// The tiny model as files, with a tokenizer of single bytes and ChatML, and rows to train it on.
#pragma once

#include <string>

#include "recipes/recipe.h"

namespace qlora::test {

// config.json, model.safetensors (bf16), tokenizer.json, tokenizer_config.json with a chat
// template.
void write_tiny_directory(const std::string& directory);
// A model of any family, with made weights in bf16 and the same tokenizer of 258 tokens; `config`
// is the text of its config.json.
void write_made_directory(const std::string& directory, const std::string& config);
// The same as a GGUF file in Q8_0.
void write_made_gguf(const std::string& path, const std::string& config);
// A small gpt-oss of 258 tokens and two layers of four experts, which its files hold in MXFP4; the
// rest is in bf16. The tokenizer is the same.
void write_mxfp4_directory(const std::string& directory);
// The model of such a directory as llama.cpp's convert_hf_to_gguf.py writes it: experts in MXFP4,
// other matrices in BF16, the rest in F32.
void write_mxfp4_gguf(const std::string& directory, const std::string& path);
// The tiny model as GGUF: F32 tensors, rows of q and k in pairs, byte-level vocabulary.
void write_tiny_gguf(const std::string& path);
// Chat rows of a few words; row i is a function of i.
void write_tiny_rows(const std::string& path, int count);
// Pairs of a chosen and a rejected answer, likewise; only the chosen one repeats a number.
void write_tiny_pairs(const std::string& path, int count);

// A recipe over such files in `directory` (model/, rows.jsonl, eval.jsonl), which it writes: six
// steps in bf16 on NF4, packed, with dropout and paged 8-bit AdamW whose state does not fit its
// arena.
recipes::Recipe tiny_recipe(const std::string& directory);

}  // namespace qlora::test
