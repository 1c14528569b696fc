// Keys of config.json and GGUF metadata that are not read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/known_keys.h"
#include "model/families/family.h"
#include "tests/support/read_config.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// What reading a config.json with these keys says.
std::string said_of(const json& more) {
  json keys = {{"model_type", "llama"}, {"hidden_size", 64},      {"num_attention_heads", 4},
               {"vocab_size", 100},     {"num_hidden_layers", 1}, {"intermediate_size", 128}};
  keys.update(more);
  return test::said_of(keys);
}

TEST(ConfigKeys, WhatTransformersWritesIsSilent) {
  EXPECT_EQ(said_of({{"architectures", {"LlamaForCausalLM"}},
                     {"attention_dropout", 0.0},
                     {"bos_token_id", 1},
                     {"eos_token_id", {2, 3}},
                     {"initializer_range", 0.02},
                     {"is_llama_config", true},
                     {"rope_interleaved", false},
                     {"pretraining_tp", 1},
                     {"sliding_window", nullptr},
                     {"torch_dtype", "bfloat16"},
                     {"transformers_version", "5.0.0"},
                     {"use_cache", true},
                     {"hidden_act", "silu"}}),
            "");
}

TEST(ConfigKeys, OthersAreNamedInOneWarning) {
  EXPECT_THAT(said_of({{"qk_norm", true}, {"logit_scale", 0.5}, {"use_rope", false}}),
              AllOf(HasSubstr("logit_scale, qk_norm, use_rope"), HasSubstr("config.json")));
}

TEST(ConfigKeys, ValuesThatAreNotComputedAreRefusedOrNamed) {
  EXPECT_THAT(said_of({{"rope_interleaved", true}}), HasSubstr("rope_interleaved must be false"));
  EXPECT_THAT(said_of({{"pruned_heads", {{"0", {1}}}}}), HasSubstr("pruned_heads"));
  EXPECT_THAT(said_of({{"attention_dropout", 0.1}}), HasSubstr("attention_dropout"));
  EXPECT_THAT(said_of({{"architectures", {"LlamaForSequenceClassification"}}}),
              HasSubstr("LlamaForSequenceClassification"));
  EXPECT_THAT(said_of({{"hidden_act", "mish"}}), HasSubstr("hidden_act"));
}

// What reading the tiny GGUF with this metadata says.
std::string said_of_gguf(const std::vector<std::pair<std::string, io::GgufValue>>& more) {
  const test::TempDir dir;
  test::write_tiny_gguf(dir / "tiny.gguf");
  const io::GgufFile tiny(dir / "tiny.gguf");
  std::vector<std::pair<std::string, io::GgufValue>> metadata(tiny.metadata().begin(),
                                                              tiny.metadata().end());
  metadata.insert(metadata.end(), more.begin(), more.end());
  io::GgufWriter writer(dir / "more.gguf", metadata, tiny.tensors());
  for (const io::TensorView& tensor : tiny.tensors()) writer.write(tensor.name, tensor.bytes);
  writer.finish();
  testing::internal::CaptureStderr();
  std::string refusal;
  try {
    read_architecture(io::GgufFile(dir / "more.gguf"));
  } catch (const FormatError& error) {
    refusal = error.what();
  }
  return testing::internal::GetCapturedStderr() + refusal;
}

TEST(GgufKeys, WhatLlamaCppWritesIsSilent) {
  EXPECT_EQ(said_of_gguf({{"general.type", std::string("model")},
                          {"general.name", std::string("tiny")},
                          {"general.file_type", uint64_t{0}},
                          {"llama.rope.dimension_count", uint64_t{8}},
                          {"llama.rope.freq_base", 10000.0f},
                          {"llama.vocab_size", uint64_t{258}},
                          {"tokenizer.ggml.add_bos_token", false}}),
            "");
}

TEST(GgufKeys, OthersAreNamedInOneWarning) {
  EXPECT_THAT(said_of_gguf({{"llama.logit_scale", 0.5f},
                            {"llama.attention.sliding_window", uint64_t{512}},
                            {"made.by", std::string("someone")}}),
              AllOf(HasSubstr("llama.attention.sliding_window, llama.logit_scale"),
                    Not(HasSubstr("made.by"))));
}

TEST(GgufKeys, WhatContradictsTheTensorsIsNamedOrRefused) {
  EXPECT_THAT(said_of_gguf({{"llama.vocab_size", uint64_t{300}}}),
              AllOf(HasSubstr("vocab_size is 300"), HasSubstr("258 rows")));
  EXPECT_THAT(said_of_gguf({{"llama.rope.dimension_count", uint64_t{4}}}),
              HasSubstr("rope.dimension_count is 4"));
  EXPECT_THAT(said_of_gguf({{"llama.attention.value_length", uint64_t{4}}}),
              HasSubstr("value_length is 4"));
  EXPECT_THAT(said_of_gguf({{"general.type", std::string("adapter")}}),
              HasSubstr("is no model but an adapter"));
  EXPECT_THAT(said_of_gguf({{"llama.attention.causal", false}}), HasSubstr("causal"));
}

TEST(GgufKeys, TheOlderNameOfLinearScalingIsRead) {
  EXPECT_THAT(said_of_gguf({{"llama.rope.scale_linear", -1.0f}}), HasSubstr("factor"));
  EXPECT_EQ(said_of_gguf({{"llama.rope.scale_linear", 0.0f}}), "");  // as 1
  EXPECT_EQ(said_of_gguf({{"llama.rope.scale_linear", 4.0f}}), "");
  const std::string factor = "llama.rope.scaling.factor";
  EXPECT_EQ(said_of_gguf({{"llama.rope.scale_linear", 4.0f}, {factor, 4.0f}}), "");
  EXPECT_THAT(said_of_gguf({{"llama.rope.scale_linear", 2.0f}, {factor, 4.0f}}),
              HasSubstr("rope.scaling.factor is 4 and llama.rope.scale_linear is 2; the former"));
}

}  // namespace
}  // namespace qlora::model
