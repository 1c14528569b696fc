// A small T5 as a directory of random weights and a tokenizer.
#pragma once

#include <fmt/format.h>

#include <string>

#include "tests/support/tiny_files.h"

namespace qlora::test {

inline void write_small_t5(const std::string& directory, int d_ff) {
  write_made_directory(directory, fmt::format(R"({{
    "model_type": "t5", "vocab_size": 258, "d_model": 32, "d_kv": 8, "d_ff": {}, "num_layers": 1,
    "num_decoder_layers": 1, "num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0,
    "eos_token_id": 1, "tie_word_embeddings": false, "feed_forward_proj": "gated-gelu"}})",
                                              d_ff));
}

}  // namespace qlora::test
