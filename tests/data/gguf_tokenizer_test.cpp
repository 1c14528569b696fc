// Tokenizers of vocabularies small enough to work the ids out by hand, through GGUF metadata and
// the Hugging Face files made from it.
#include "data/tokenizers/gguf_tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>

#include "base/error.h"
#include "tests/support/small_vocabularies.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Metadata = std::map<std::string, io::GgufValue>;
using Texts = std::vector<std::string>;

std::unique_ptr<Tokenizer> tokenizer_of(const test::TempDir& dir, const Metadata& metadata) {
  return load_tokenizer(test::gguf_of_metadata(dir, metadata).path());
}

Metadata byte_level() { return test::byte_level_metadata(); }
Metadata sentencepiece() { return test::sentencepiece_metadata(); }
Metadata unigram() { return test::unigram_metadata(); }

TEST(GgufTokenizer, MergesApplyInTheirOrder) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, byte_level());
  EXPECT_THAT(tokenizer->encode("abc", false), ElementsAre(257));
  EXPECT_THAT(tokenizer->encode("ab ab", false), ElementsAre(256, ' ', 256));  // before "Ġ a"
  EXPECT_THAT(tokenizer->encode("ab ac", false), ElementsAre(256, 258, 'c'));
  EXPECT_THAT(tokenizer->encode("x<|end|>", false), ElementsAre('x', 259));
}

TEST(GgufTokenizer, EveryByteOfValidTextComesBack) {
  test::TempDir dir;
  std::string text;
  for (int byte = 1; byte < 128; ++byte) text += static_cast<char>(byte);
  text += "é 例 🦙 \xc2\xa0 e\xcc\x81";
  for (const Metadata& metadata : {byte_level(), sentencepiece()}) {
    const auto tokenizer = tokenizer_of(dir, metadata);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false), false), text);
  }
}

TEST(GgufTokenizer, SentencepieceMergesTheBestPairFirstAndFallsBackToBytes) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, sentencepiece());
  // " ab": "▁a" has a better score than "ab"; "▁a" + "b" then make "▁ab".
  EXPECT_THAT(tokenizer->encode("ab", false), ElementsAre(261));
  EXPECT_THAT(tokenizer->encode("aab", false), ElementsAre(259, 260));
  EXPECT_THAT(tokenizer->encode("aé", false), ElementsAre(259, 3 + 0xc3, 3 + 0xa9));
}

// As llama.cpp's, whose fragments behind a special token begin like a text.
TEST(GgufTokenizer, SentencepieceHasABlankInFrontOfWhatFollowsASpecialToken) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, sentencepiece());
  EXPECT_THAT(tokenizer->encode("</s>ab", false), ElementsAre(2, 261));
  Metadata bare = sentencepiece();
  bare["tokenizer.ggml.add_space_prefix"] = false;
  EXPECT_THAT(tokenizer_of(dir, bare)->encode("</s>ab", false), ElementsAre(2, 260));
}

TEST(GgufTokenizer, AUnigramVocabularyTakesTheLikeliestPieces) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, unigram());
  EXPECT_THAT(tokenizer->encode("ab", false), ElementsAre(8));
  EXPECT_THAT(tokenizer->encode("aab", false), ElementsAre(6, 7));
  EXPECT_THAT(tokenizer->encode("c", false), ElementsAre(3, 2));
  EXPECT_THAT(tokenizer->encode("ab</s>a", false), ElementsAre(8, 1, 6));
  EXPECT_THAT(tokenizer->encode("ab", true), ElementsAre(8, 1));
  const std::vector<TokenId> ids = {6, 8, 1};
  EXPECT_EQ(tokenizer->decode(ids, true), "a ab");
}

// As transformers writes them: an unknown piece within a text takes no blank from what follows it.
TEST(GgufTokenizer, AnUnknownPieceReadsAsItsToken) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, unigram());
  const std::vector<TokenId> ids = {6, 2, 8, 1};
  EXPECT_EQ(tokenizer->decode(ids, false), "a<unk> ab</s>");
  EXPECT_EQ(tokenizer->decode(ids, true), "a ab");
}

TEST(GgufTokenizer, ATextIsPreparedForUnigramsAsTheFileSays) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, unigram());
  EXPECT_THAT(tokenizer->encode("\ufb01", false), ElementsAre(3, 9));
  EXPECT_THAT(tokenizer->encode(" a\t  b ", false), ElementsAre(6, 3, 5));
  EXPECT_THAT(tokenizer->encode("  ", false), ElementsAre());
  Metadata plain = unigram();
  for (const char* key : {"add_space_prefix", "remove_extra_whitespaces", "precompiled_charsmap",
                          "eos_token_id", "padding_token_id", "unknown_token_id"})
    plain.erase(std::string("tokenizer.ggml.") + key);
  const auto bare = tokenizer_of(dir, plain);
  EXPECT_THAT(bare->encode("ab", true), ElementsAre(7, 1));
  EXPECT_THAT(bare->encode("a  b", false), ElementsAre(4, 3, 3, 5));
  EXPECT_THAT(bare->encode("\ufb01", false), ElementsAre(2));
  EXPECT_EQ(bare->special_tokens().pad->id, 0);
}

// A piece that goes on over a blank.
TEST(GgufTokenizer, UnigramsAreSoughtInTheWholeText) {
  test::TempDir dir;
  Metadata metadata = unigram();
  std::get<Texts>(metadata["tokenizer.ggml.tokens"]).push_back("a▁b");
  std::get<std::vector<int64_t>>(metadata["tokenizer.ggml.token_type"]).push_back(1);
  std::get<std::vector<float>>(metadata["tokenizer.ggml.scores"]).push_back(-1);
  EXPECT_THAT(tokenizer_of(dir, metadata)->encode("a b", false), ElementsAre(3, 10));
}

// They neither are tokens of a text nor lower the score of what is unknown: an unknown character
// and a likely piece are likelier than two rare pieces.
TEST(GgufTokenizer, UnusedAndUserDefinedPiecesChangeNoOtherTokens) {
  test::TempDir dir;
  Metadata metadata = unigram();
  const auto add = [&metadata](const char* token, int64_t type, float score) {
    std::get<Texts>(metadata["tokenizer.ggml.tokens"]).emplace_back(token);
    std::get<std::vector<int64_t>>(metadata["tokenizer.ggml.token_type"]).push_back(type);
    std::get<std::vector<float>>(metadata["tokenizer.ggml.scores"]).push_back(score);
  };
  add("xy", test::token_type::kNormal, -30);  // 10
  add("z", test::token_type::kNormal, -30);
  add("yz", test::token_type::kNormal, -1);
  const std::vector<TokenId> before = tokenizer_of(dir, metadata)->encode("xyz", false);
  EXPECT_THAT(before, ElementsAre(3, 2, 12));
  add("<user>", test::token_type::kUserDefined, -1000);
  add("[PAD14]", test::token_type::kUnused, -10000);
  const auto tokenizer = tokenizer_of(dir, metadata);
  EXPECT_EQ(tokenizer->encode("xyz", false), before);
  EXPECT_THAT(tokenizer->encode("a<user>b", false), ElementsAre(6, 13, 3, 5));
  EXPECT_EQ(tokenizer->vocab_size(), 14);
  EXPECT_THAT(tokenizer->encode("[PAD14]", false), testing::Not(testing::Contains(14)));
}

TEST(GgufTokenizer, TheFileSaysWhatGoesAroundAText) {
  test::TempDir dir;
  Metadata metadata = sentencepiece();
  metadata["tokenizer.ggml.add_bos_token"] = true;
  metadata["tokenizer.ggml.add_eos_token"] = true;
  EXPECT_THAT(tokenizer_of(dir, metadata)->encode("ab", true), ElementsAre(1, 261, 2));
  metadata["tokenizer.ggml.add_bos_token"] = false;
  metadata["tokenizer.ggml.add_eos_token"] = false;
  EXPECT_THAT(tokenizer_of(dir, metadata)->encode("ab", true), ElementsAre(261));
}

TEST(GgufTokenizer, RolesAndSpecialTokensAreKnown) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, byte_level());
  ASSERT_TRUE(tokenizer->special_tokens().eos);
  EXPECT_EQ(tokenizer->special_tokens().eos->id, 259);
  EXPECT_THAT(tokenizer->special_tokens().end_of_generation, ElementsAre(259));
  EXPECT_TRUE(tokenizer->is_special(259));
  EXPECT_FALSE(tokenizer->is_special(257));
  const std::vector<TokenId> ids = {'a', 259};
  EXPECT_EQ(tokenizer->decode(ids, true), "a");
  EXPECT_EQ(tokenizer->decode(ids, false), "a<|end|>");
  EXPECT_EQ(tokenizer->vocab_size(), 260);
}

TEST(GgufTokenizer, TheFilesItWritesMakeTheSameTokenizer) {
  test::TempDir dir;
  for (const Metadata& metadata : {byte_level(), sentencepiece(), unigram()}) {
    const auto tokenizer = tokenizer_of(dir, metadata);
    fs::remove_all(dir / "written");
    fs::create_directory(dir / "written");
    tokenizer->write_files(dir / "written");
    const auto again = load_tokenizer(dir / "written");
    for (const char* text : {"abc ab a", "</s> <|end|>", "例"})
      EXPECT_EQ(again->encode(text, true), tokenizer->encode(text, true)) << text;
  }
}

TEST(GgufTokenizer, ATokenOfARoleBeyondTheVocabularyIsLeftOutWithAWarning) {
  for (const auto& [role, id] :
       {std::pair{"padding", uint64_t{4294967295}}, {"eos", uint64_t{260}}}) {
    test::TempDir dir;
    Metadata metadata = byte_level();
    metadata["tokenizer.ggml." + std::string(role) + "_token_id"] = id;
    testing::internal::CaptureStderr();
    const auto tokenizer = tokenizer_of(dir, metadata);
    EXPECT_THAT(
        testing::internal::GetCapturedStderr(),
        HasSubstr(fmt::format("{}_token_id is {}, which is none of the 260 tokens", role, id)));
    const SpecialTokens& special = tokenizer->special_tokens();
    EXPECT_FALSE(std::string(role) == "eos" ? special.eos : special.pad) << role;
    EXPECT_EQ(tokenizer->encode("ab", false), tokenizer_of(dir, byte_level())->encode("ab", false));
  }
}

TEST(GgufTokenizer, TokensOfTheUndefinedTypeAreNormalOnes) {
  test::TempDir dir;
  for (const Metadata& metadata : {byte_level(), sentencepiece()}) {
    Metadata undefined = metadata;
    for (int64_t& type : std::get<std::vector<int64_t>>(undefined["tokenizer.ggml.token_type"]))
      if (type == test::token_type::kNormal) type = 0;
    const auto expected = tokenizer_of(dir, metadata)->encode("abc ab a", false);
    EXPECT_EQ(tokenizer_of(dir, undefined)->encode("abc ab a", false), expected);
  }
}

TEST(GgufTokenizer, MetadataThatContradictsItselfIsRefusedByItsKey) {
  test::TempDir dir;
  const auto refused = [&](const char* key, const Metadata& from,
                           const std::function<void(Metadata&)>& change) {
    Metadata metadata = from;
    change(metadata);
    EXPECT_THAT([&] { tokenizer_of(dir, metadata); }, ThrowsMessage<FormatError>(HasSubstr(key)))
        << key;
  };
  refused("tokenizer.ggml.model", byte_level(),
          [](Metadata& m) { m["tokenizer.ggml.model"] = std::string("bert"); });
  refused("no-such-family", byte_level(),
          [](Metadata& m) { m["tokenizer.ggml.pre"] = std::string("no-such-family"); });
  refused("tokenizer.ggml.token_type", byte_level(), [](Metadata& m) {
    m["tokenizer.ggml.token_type"] = std::vector<int64_t>{1, 1};
  });
  refused("tokenizer.ggml.token_type", byte_level(),
          [](Metadata& m) { m["tokenizer.ggml.token_type"] = std::vector<int64_t>(260, 9); });
  refused("tokenizer.ggml.token_type must be 0 to 6", byte_level(),
          [](Metadata& m) { m["tokenizer.ggml.token_type"] = std::vector<int64_t>(260, -1); });
  refused("tokenizer.ggml.scores", unigram(),
          [](Metadata& m) { m["tokenizer.ggml.scores"] = std::vector<float>{1}; });
  refused("precompiled_charsmap", unigram(), [](Metadata& m) {
    m["tokenizer.ggml.precompiled_charsmap"] = std::vector<int64_t>{4, 0, 0, 0};
  });
  refused("precompiled_charsmap", unigram(), [](Metadata& m) {
    m["tokenizer.ggml.precompiled_charsmap"] = std::vector<int64_t>{300};
  });
  refused("tokenizer.ggml.tokens", byte_level(),
          [](Metadata& m) { std::get<Texts>(m["tokenizer.ggml.tokens"])[257] = "ab"; });
  refused("tokenizer.ggml.tokens", byte_level(),
          [](Metadata& m) { std::get<Texts>(m["tokenizer.ggml.tokens"])[257] = "\xff"; });
  refused("zz", byte_level(), [](Metadata& m) { m["tokenizer.ggml.merges"] = Texts{"a zz"}; });
  refused("tokenizer.ggml.merges", byte_level(),
          [](Metadata& m) { m["tokenizer.ggml.merges"] = Texts{"a \xff"}; });
  refused("tokenizer.ggml.scores", sentencepiece(), [](Metadata& m) {
    m["tokenizer.ggml.scores"] = std::vector<float>{1, 2};
  });
  refused("tokenizer.ggml.tokens", byte_level(),
          [](Metadata& m) { m.erase("tokenizer.ggml.tokens"); });
}

// A piece of sentencepiece's ModelProto: field 1 of the model with text, score 0 and type.
std::string proto_piece(const std::string& text, char type) {
  std::string piece = "\x0a" + std::string(1, static_cast<char>(text.size())) + text;
  piece += std::string("\x15\0\0\0\0", 5) + "\x18" + std::string(1, type);
  return "\x0a" + std::string(1, static_cast<char>(piece.size())) + piece;
}

// The library's tables throw an exception of their own.
TEST(SentencePiece, AModelWhoseTablesCannotBeMadeIsRefused) {
  const test::TempDir dir;
  dir.write("m/tokenizer.model", proto_piece("<unk>", 2) + proto_piece(std::string("\0b", 2), 1));
  EXPECT_THAT([&] { load_tokenizer(dir / "m"); },
              ThrowsMessage<FormatError>(HasSubstr("must be a sentencepiece model")));
}

TEST(SentencePiece, WhatAModelLacksIsSaidInOwnWords) {
  const test::TempDir dir;
  const auto expect_refused = [&](const std::string& bytes, const std::string& part) {
    dir.write("m/tokenizer.model", bytes);
    EXPECT_THAT(
        [&] { load_tokenizer(dir / "m"); },
        ThrowsMessage<FormatError>(testing::AllOf(HasSubstr("tokenizer.model"), HasSubstr(part),
                                                  testing::Not(HasSubstr("Internal")))));
  };
  expect_refused("", "holds no pieces");
  expect_refused(proto_piece("a", 1), "no piece that stands for unknown text (<unk>)");
  expect_refused("not one", "damaged or cut off");
}

TEST(Tokenizer, AnIdThatIsNoTokensIsWrongInput) {
  test::TempDir dir;
  for (const Metadata& metadata : {byte_level(), sentencepiece()}) {
    const auto tokenizer = tokenizer_of(dir, metadata);
    EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{999}, false), FormatError);
    EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{999}, true), "");
    EXPECT_THROW(tokenizer->id_to_token(-1), FormatError);
  }
}

TEST(Tokenizer, CutsSplitAnEncodingBehindControlTokens) {
  test::TempDir dir;
  for (const Metadata& metadata : {byte_level(), sentencepiece()}) {
    const auto tokenizer = tokenizer_of(dir, metadata);
    const std::string end = tokenizer->special_tokens().eos->text;
    const std::string text = "ab" + end + " ab" + end + end + "b";
    std::vector<TokenCut> cuts;
    const auto ids = tokenizer->encode_behind(text, {}, &cuts);
    EXPECT_EQ(ids, tokenizer->encode(text, false));
    ASSERT_EQ(cuts.size(), 3u);
    for (const TokenCut& cut : cuts) {
      std::vector<TokenId> joined(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(cut.num_ids));
      const auto rest = tokenizer->encode_behind(text, cut, nullptr);
      joined.insert(joined.end(), rest.begin(), rest.end());
      EXPECT_EQ(joined, ids);
    }
  }
}

TEST(Tokenizer, AFileOfAnotherKindIsNamedByItsOwnNameAndKind) {
  test::TempDir dir;
  const auto says = [&](const std::string& name, const std::string& bytes, const char* kind) {
    const std::string path = dir.write(name, bytes);
    EXPECT_THAT([&] { load_tokenizer(path); },
                ThrowsMessage<FormatError>(AllOf(HasSubstr(path), HasSubstr(kind))));
    const std::string directory = path.substr(0, path.rfind('/'));
    EXPECT_THAT([&] { load_tokenizer(directory); },
                ThrowsMessage<FormatError>(AllOf(HasSubstr(path), HasSubstr(kind))));
  };
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
  says("a/tokenizer.json", pointer, "Git LFS");
  says("b/tokenizer.model", pointer, "Git LFS");
  says("c/tokenizer.model", "IQ== 0\nIg== 1\n", "tiktoken");
  says("d/qwen.tiktoken", "IQ== 0\nIg== 1\n", "tiktoken");
  says("e/tekken.json", R"({"config": {"pattern": ""}, "vocab": [{"token_bytes": "AA=="}]})",
       "tekken");
  const std::string broken = dir.write("my_own.json", "{");
  EXPECT_THAT(
      [&] { load_tokenizer(broken); },
      ThrowsMessage<FormatError>(HasSubstr("my_own.json is not valid JSON: the text ends before")));
}

TEST(GgufTokenizer, AFileThatIsNoModelIsCalledWhatItIs) {
  test::TempDir dir;
  EXPECT_THAT(
      [&] {
        tokenizer_of(dir, {{"general.type", std::string("adapter")}});
      },
      ThrowsMessage<FormatError>(HasSubstr("vocabulary.gguf is no model but an adapter")));
}

TEST(GgufTokenizer, TextThatIsNotUtf8IsRefusedWithThePlace) {
  test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, byte_level());
  EXPECT_THAT([&] { tokenizer->encode("abc\xff", false); },
              ThrowsMessage<FormatError>(HasSubstr("3")));
  EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{260}, false), Error);
  EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{-1}, false), Error);
}

}  // namespace
}  // namespace qlora::data
