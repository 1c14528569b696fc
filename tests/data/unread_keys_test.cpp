// Keys of tokenizer_config.json and of GGUF's tokenizer metadata that are not read, and
// vocabularies that are filled up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizers/config_keys.h"
#include "data/tokenizers/gguf_tokenizer.h"
#include "data/tokenizers/tokenizer_config.h"
#include "io/gguf.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// What is said of a tokenizer_config.json.
std::string said_of(const json& config) {
  static int count = 0;  // a warning is said once a file
  testing::internal::CaptureStderr();
  std::string refusal;
  try {
    check_tokenizer_config_keys(io::JsonNode(config, fmt::format("{}.json", ++count)));
  } catch (const FormatError& error) {
    refusal = error.what();
  }
  return testing::internal::GetCapturedStderr() + refusal;
}

TEST(TokenizerConfigKeys, WhatTransformersWritesIsSilent) {
  EXPECT_EQ(said_of({{"tokenizer_class", "PreTrainedTokenizerFast"},
                     {"bos_token", "<s>"},
                     {"image_token", "<image>"},
                     {"clean_up_tokenization_spaces", false},
                     {"model_max_length", 131072},
                     {"split_special_tokens", false},
                     {"sp_model_kwargs", json::object()},
                     {"padding_side", "left"},
                     {"extra_special_tokens", json::object()}}),
            "");
}

TEST(TokenizerConfigKeys, OthersAreNamedOrRefused) {
  EXPECT_THAT(said_of({{"remove_space", true}, {"keep_accents", false}}),
              HasSubstr("keep_accents, remove_space"));
  EXPECT_THAT(said_of({{"split_special_tokens", true}}), HasSubstr("split_special_tokens"));
  EXPECT_THAT(said_of({{"do_lower_case", true}}), HasSubstr("do_lower_case"));
  EXPECT_THAT(said_of({{"sp_model_kwargs", {{"enable_sampling", true}}}}),
              HasSubstr("enable_sampling"));
}

// <unk>, <s>, </s>, "▁a", "b", and two entries that fill the vocabulary up, as converters of
// Phi-3 mark them.
std::vector<std::pair<std::string, io::GgufValue>> filled_up() {
  using Texts = std::vector<std::string>;
  return {{"general.architecture", std::string("llama")},
          {"tokenizer.ggml.model", std::string("llama")},
          {"tokenizer.ggml.tokens", Texts{"<unk>", "<s>", "</s>", "▁a", "b", "[PAD5]", "[PAD6]"}},
          {"tokenizer.ggml.token_type", std::vector<int64_t>{2, 3, 3, 1, 1, 2, 2}},
          {"tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1, -2, -1000, -1000}},
          {"tokenizer.ggml.bos_token_id", uint64_t{1}},
          {"tokenizer.ggml.eos_token_id", uint64_t{2}}};
}

std::unique_ptr<Tokenizer> tokenizer_of(
    const test::TempDir& dir, const std::vector<std::pair<std::string, io::GgufValue>>& metadata) {
  io::GgufWriter(dir / "vocabulary.gguf", metadata, {}).finish();
  return load_tokenizer(dir / "vocabulary.gguf");
}

TEST(GgufVocabulary, EntriesOfTheUnknownTypeThatFillItUpAreNoTokensOfAText) {
  const test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, filled_up());
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  EXPECT_THAT(tokenizer->encode("ab", false), ElementsAre(3, 4));
  EXPECT_THAT(tokenizer->encode("c", false), testing::Contains(0));
  EXPECT_THAT(tokenizer->encode("[PAD5]", false), testing::Not(testing::Contains(5)));
}

TEST(TokenizerConfigFiles, OnesThatAreOfAnotherKindAreSaidToBe) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n";
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                           "generation_config.json", "chat_template.json", "chat_template.jinja"})
    for (const auto& [text, kind] :
         {std::pair(pointer, "is a Git LFS pointer"),
          {std::string("{\0\"\0a\0\"\0:\0001\0}\0", 14), "is text in UTF-16"},
          {std::string("<html></html>"), "is a web page"}})
      try {
        parse_tokenizer_config({{name, text}}, "m");
        FAIL() << name;
      } catch (const FormatError& error) {
        EXPECT_THAT(error.what(),
                    testing::AllOf(HasSubstr(std::string("m/") + name), HasSubstr(kind)));
      }
}

TEST(LoadTokenizer, APathThatHoldsNoneSaysWhatItHolds) {
  const test::TempDir dir;
  const auto refusal = [](const std::string& path) -> std::string {
    try {
      load_tokenizer(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(refusal(dir.write("model.safetensors", "x")), HasSubstr("holds weights and no"));
  EXPECT_THAT(refusal(dir.path()), HasSubstr("must hold tokenizer.json"));
  dir.write("adapter_config.json", "{}");
  EXPECT_THAT(refusal(dir.path()),
              HasSubstr("is an adapter and holds no tokenizer: give its base"));
}

TEST(GgufTokenizerKeys, OthersAreNamed) {
  const test::TempDir dir;
  auto metadata = filled_up();
  metadata.push_back({"tokenizer.ggml.precompiled_charsmap", std::vector<int64_t>{1}});
  metadata.push_back({"tokenizer.ggml.remove_extra_whitespaces", false});
  metadata.push_back({"tokenizer.ggml.fim_pre_token_id", uint64_t{3}});
  metadata.push_back({"tokenizer.chat_template.tool_use", std::string("x")});
  testing::internal::CaptureStderr();
  tokenizer_of(dir, metadata);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("neither reads nor knows: tokenizer.ggml.precompiled_charsmap\n"));
}

}  // namespace
}  // namespace qlora::data
