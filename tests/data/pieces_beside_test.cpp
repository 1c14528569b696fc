// tokenizer.json beside a tokenizer.model: one vocabulary, or two.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "data/tokenizer.h"
#include "data/tokenizers/sentencepiece_proto.h"
#include "tests/support/small_vocabularies.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

// What is said of a directory with the small sentencepiece model and a tokenizer.json of its pieces
// that `edit` has changed.
std::string said_of(const std::function<void(json&)>& edit, const std::string& model = "") {
  const test::TempDir dir;
  const std::string small =
      load_tokenizer(test::gguf_of_metadata(dir, test::sentencepiece_metadata()).path())
          ->files()
          .at("tokenizer.model");
  json vocabulary = json::object();
  for (const SentencePiece& piece : parse_model(small, "m").pieces)
    vocabulary[piece.text] = vocabulary.size();
  json tokenizer = {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}},
                    {"added_tokens", json::array()}};
  edit(tokenizer);
  dir.write("both/tokenizer.json", tokenizer.dump());
  dir.write("both/tokenizer.model", model.empty() ? small : model);
  testing::internal::CaptureStderr();
  load_tokenizer(dir / "both");
  return testing::internal::GetCapturedStderr();
}

json added_token(const std::string& text, size_t id) {
  return {{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

TEST(PiecesBeside, TheSameOnesAreNotSpokenOf) {
  EXPECT_EQ(said_of([](json&) {}), "");
  EXPECT_EQ(said_of([](json& tokenizer) {
              const size_t next = tokenizer["model"]["vocab"].size();
              tokenizer["added_tokens"].push_back(added_token("<|im_start|>", next));
            }),
            "");
}

TEST(PiecesBeside, WhatIsNoSentencepieceModelIsLeftAside) {
  EXPECT_EQ(said_of([](json&) {}, "IQ== 0\nIg== 1\n"), "");
}

TEST(PiecesBeside, OtherOnesAreWarnedOf) {
  const auto two = AllOf(HasSubstr("tokenizer.json and tokenizer.model are two vocabularies"),
                         HasSubstr("tokenizer.json is used"));
  EXPECT_THAT(said_of([](json& tokenizer) {
                json& vocabulary = tokenizer["model"]["vocab"];
                std::swap(vocabulary["a"], vocabulary["b"]);
              }),
              two);
  EXPECT_THAT(said_of([](json& tokenizer) {
                json& vocabulary = tokenizer["model"]["vocab"];
                vocabulary["of its own"] = vocabulary.size();
              }),
              two);
}

}  // namespace
}  // namespace qlora::data
