// A tokenizer written to GGUF metadata and read again is the same tokenizer.
#include "data/tokenizers/gguf_tokenizer_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "data/tokenizers/byte_level_json.h"
#include "data/tokenizers/sentencepiece_proto.h"
#include "tests/support/small_vocabularies.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
using nlohmann::json;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr const char* kTexts[] = {"abc ab a", "a b  ab\tabc", "例 é", "ab<|end|> a</s>", "", " a"};

std::unique_ptr<Tokenizer> tokenizer_of(const test::TempDir& dir,
                                        const test::GgufMetadata& metadata) {
  return load_tokenizer(test::gguf_of_metadata(dir, metadata).path());
}

test::GgufMetadata written(const Tokenizer& tokenizer, const GgufTokenizerOptions& options) {
  const auto list = gguf_tokenizer_metadata(tokenizer, options);
  test::GgufMetadata metadata(list.begin(), list.end());
  EXPECT_EQ(metadata.size(), list.size()) << "a key twice";
  metadata["general.architecture"] = std::string("llama");
  return metadata;
}

void expect_same(const Tokenizer& found, const Tokenizer& wanted) {
  for (const char* text : kTexts) {
    EXPECT_EQ(found.encode(text, false), wanted.encode(text, false)) << text;
    EXPECT_EQ(found.encode(text, true), wanted.encode(text, true)) << text;
  }
  const SpecialTokens &a = found.special_tokens(), &b = wanted.special_tokens();
  const auto id_of = [](const std::optional<SpecialToken>& token) {
    return token ? token->id : -1;
  };
  EXPECT_EQ(id_of(a.bos), id_of(b.bos));
  EXPECT_EQ(id_of(a.eos), id_of(b.eos));
  for (TokenId id = 0; id < wanted.vocab_size(); ++id) {
    EXPECT_EQ(found.id_to_token(id), wanted.id_to_token(id));
    EXPECT_EQ(found.is_special(id), wanted.is_special(id)) << wanted.id_to_token(id);
  }
}

TEST(GgufTokenizerMetadata, AllKindsComeBackAsTheyWere) {
  const test::TempDir dir;
  for (const test::GgufMetadata& source :
       {test::byte_level_metadata(), test::sentencepiece_metadata(), test::unigram_metadata()}) {
    const auto tokenizer = tokenizer_of(dir, source);
    const GgufTokenizerOptions options{.rows = tokenizer->vocab_size(),
                                       .chat_template = "{{ messages }}",
                                       .ends = tokenizer->special_tokens().end_of_generation};
    const test::GgufMetadata metadata = written(*tokenizer, options);
    EXPECT_EQ(metadata.at("tokenizer.ggml.tokens"), source.at("tokenizer.ggml.tokens"));
    EXPECT_EQ(metadata.at("tokenizer.ggml.token_type"), source.at("tokenizer.ggml.token_type"));
    const auto again = tokenizer_of(dir, metadata);
    expect_same(*again, *tokenizer);
    EXPECT_EQ(again->chat_template(), "{{ messages }}");
  }
}

TEST(GgufTokenizerMetadata, ATemplateForToolsComesBackAndIsAnotherTokenizer) {
  const test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, test::byte_level_metadata());
  GgufTokenizerOptions options{.rows = tokenizer->vocab_size(), .chat_template = "{{ 1 }}"};
  const auto alone = tokenizer_of(dir, written(*tokenizer, options));
  EXPECT_EQ(alone->tool_use_template(), "");
  options.tool_use_template = "{{ 2 }}";
  const test::GgufMetadata metadata = written(*tokenizer, options);
  EXPECT_EQ(std::get<std::vector<std::string>>(metadata.at("tokenizer.chat_templates")),
            std::vector<std::string>{"tool_use"});
  const auto both = tokenizer_of(dir, metadata);
  EXPECT_EQ(both->chat_template(), "{{ 1 }}");
  EXPECT_EQ(both->tool_use_template(), "{{ 2 }}");
  EXPECT_NE(both->fingerprint(), alone->fingerprint());
}

TEST(GgufTokenizerMetadata, WhatGoesAroundATextIsWritten) {
  const test::TempDir dir;
  for (const bool adds : {true, false}) {
    test::GgufMetadata source = test::sentencepiece_metadata();
    source["tokenizer.ggml.add_bos_token"] = adds;
    source["tokenizer.ggml.add_eos_token"] = adds;
    source["tokenizer.ggml.add_space_prefix"] = !adds;
    const auto tokenizer = tokenizer_of(dir, source);
    const auto metadata = written(*tokenizer, {.rows = tokenizer->vocab_size()});
    for (const char* key : {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
                            "tokenizer.ggml.add_space_prefix"})
      EXPECT_EQ(metadata.at(key), source.at(key)) << key;
    expect_same(*tokenizer_of(dir, metadata), *tokenizer);
  }
}

TEST(GgufTokenizerMetadata, HowTextsArePreparedForUnigramsIsWritten) {
  const test::TempDir dir;
  for (const bool changes : {true, false}) {
    test::GgufMetadata source = test::unigram_metadata();
    source["tokenizer.ggml.add_space_prefix"] = changes;
    source["tokenizer.ggml.remove_extra_whitespaces"] = changes;
    if (!changes) source.erase("tokenizer.ggml.precompiled_charsmap");
    const auto tokenizer = tokenizer_of(dir, source);
    const auto metadata = written(*tokenizer, {.rows = tokenizer->vocab_size()});
    for (const char* key :
         {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.add_space_prefix",
          "tokenizer.ggml.remove_extra_whitespaces"})
      EXPECT_EQ(metadata.at(key), source.at(key)) << key;
    EXPECT_EQ(metadata.contains("tokenizer.ggml.precompiled_charsmap"), changes);
    if (changes) {
      EXPECT_EQ(metadata.at("tokenizer.ggml.precompiled_charsmap"),
                source.at("tokenizer.ggml.precompiled_charsmap"));
    }
    EXPECT_EQ(metadata.at("tokenizer.ggml.add_bos_token"), io::GgufValue(false));
    EXPECT_EQ(metadata.at("tokenizer.ggml.add_eos_token"), io::GgufValue(true));
    expect_same(*tokenizer_of(dir, metadata), *tokenizer);
  }
}

// As transformers saves T5's.
json converted_unigram(const test::GgufMetadata& source) {
  const auto& tokens = std::get<std::vector<std::string>>(source.at("tokenizer.ggml.tokens"));
  const auto& scores = std::get<std::vector<float>>(source.at("tokenizer.ggml.scores"));
  json vocab = json::array(), added = json::array();
  for (size_t id = 0; id < tokens.size(); ++id)
    vocab.push_back(json::array({tokens[id], scores[id]}));
  for (const size_t id : {0, 1, 2})
    added.push_back({{"id", id},
                     {"content", tokens[id]},
                     {"special", true},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false},
                     {"normalized", false}});
  const json metaspace = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer",
           {{"type", "Precompiled"},
            {"precompiled_charsmap", to_base64(test::charsmap_of({{"\t", " "}, {"ﬁ", "fi"}}))}}},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers", json::array({{{"type", "WhitespaceSplit"}}, metaspace})}}},
          {"post_processor", nullptr},
          {"decoder", metaspace},
          {"model", {{"type", "Unigram"}, {"unk_id", 2}, {"vocab", vocab}}}};
}

TEST(GgufTokenizerMetadata, AUnigramDocumentOfTransformersIsWrittenAsItsModelWas) {
  const test::TempDir dir;
  const test::GgufMetadata source = test::unigram_metadata();
  dir.write("json/tokenizer.json", converted_unigram(source).dump());
  const auto tokenizer = load_tokenizer(dir / "json");
  const auto metadata = written(*tokenizer, {.rows = tokenizer->vocab_size()});
  for (const char* key :
       {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
        "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces",
        "tokenizer.ggml.precompiled_charsmap"})
    EXPECT_EQ(metadata.at(key), source.at(key)) << key;
  const auto found = tokenizer_of(dir, metadata);
  for (const char* text : {"ab", "a\tﬁ  b", "</s>ab c", ""})
    EXPECT_EQ(found->encode(text, false), tokenizer->encode(text, false)) << text;
}

TEST(GgufTokenizerMetadata, ANormalizerThatIsNoSentencepieceModelsIsRefused) {
  const test::TempDir dir;
  json document = converted_unigram(test::unigram_metadata());
  document["normalizer"] = {{"type", "NFKC"}};
  dir.write("json/tokenizer.json", document.dump());
  const auto tokenizer = load_tokenizer(dir / "json");
  EXPECT_THAT([&] { written(*tokenizer, {.rows = 10}); },
              ThrowsMessage<ConfigError>(HasSubstr("normalizer")));
}

TEST(GgufTokenizerMetadata, RowsWithoutATokenAreUnusedAndTokensWithoutARowAreLeftOut) {
  const test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, test::byte_level_metadata());
  const auto more = written(*tokenizer, {.rows = 262});
  const auto& tokens = std::get<std::vector<std::string>>(more.at("tokenizer.ggml.tokens"));
  ASSERT_EQ(tokens.size(), 262u);
  EXPECT_EQ(tokens[260], "[PAD260]");
  EXPECT_EQ(std::get<std::vector<int64_t>>(more.at("tokenizer.ggml.token_type"))[260], 5);
  expect_same(*tokenizer_of(dir, more), *tokenizer);
  const auto fewer = written(*tokenizer, {.rows = 259});  // without <|end|>, the EOS
  EXPECT_EQ(std::get<std::vector<std::string>>(fewer.at("tokenizer.ggml.tokens")).size(), 259u);
  EXPECT_FALSE(fewer.contains("tokenizer.ggml.eos_token_id"));
}

TEST(GgufTokenizerMetadata, FurtherEndsAreEotAndEom) {
  const test::TempDir dir;
  const auto tokenizer = tokenizer_of(dir, test::byte_level_metadata());
  const auto metadata =
      written(*tokenizer, {.rows = tokenizer->vocab_size(), .ends = {259, 257, 259, 258}});
  EXPECT_EQ(std::get<uint64_t>(metadata.at("tokenizer.ggml.eos_token_id")), 259u);
  EXPECT_EQ(std::get<uint64_t>(metadata.at("tokenizer.ggml.eot_token_id")), 257u);
  EXPECT_EQ(std::get<uint64_t>(metadata.at("tokenizer.ggml.eom_token_id")), 258u);
  EXPECT_THAT(tokenizer_of(dir, metadata)->special_tokens().end_of_generation,
              testing::ElementsAre(257, 258, 259));
}

// The sentencepiece vocabulary of the tests as the tokenizer.json that transformers makes of it.
json converted(const test::GgufMetadata& source) {
  const auto& tokens = std::get<std::vector<std::string>>(source.at("tokenizer.ggml.tokens"));
  json vocab = json::object();
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  const auto added = [](int id, const char* content) {
    return json{{"id", id},        {"content", content},   {"special", true},    {"lstrip", false},
                {"rstrip", false}, {"single_word", false}, {"normalized", false}};
  };
  return {{"version", "1.0"},
          {"added_tokens", {added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "▁"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", {"▁ a", "a b", "▁a b"}}}}};
}

TEST(GgufTokenizerMetadata, RanksOfMergesAreScoresWhereThereIsNoModel) {
  const test::TempDir dir;
  dir.write("json/tokenizer.json", converted(test::sentencepiece_metadata()).dump());
  const auto tokenizer = load_tokenizer(dir / "json");
  const auto metadata = written(*tokenizer, {.rows = tokenizer->vocab_size()});
  EXPECT_EQ(std::get<std::string>(metadata.at("tokenizer.ggml.model")), "llama");
  EXPECT_TRUE(std::get<bool>(metadata.at("tokenizer.ggml.add_space_prefix")));
  const auto& types = std::get<std::vector<int64_t>>(metadata.at("tokenizer.ggml.token_type"));
  EXPECT_EQ(types[0], test::token_type::kUnknown);
  EXPECT_EQ(types[2], test::token_type::kControl);
  EXPECT_EQ(types[3], test::token_type::kByte);
  const auto found = tokenizer_of(dir, metadata);
  for (const char* text : {"ab", "aab", "ab ab a", "aé b"})
    EXPECT_EQ(found->encode(text, false), tokenizer->encode(text, false)) << text;
}

// The names that llama.cpp's converter writes for the families whose files are read here.
TEST(GgufTokenizerMetadata, ThePreTokenizersOfEveryFamilysFilesAreKnown) {
  for (const char* name : {"default",     "llama-bpe", "tekken", "qwen2",     "deepseek-r1-qwen",
                           "smaug-bpe",   "smollm",    "refact", "olmo",      "dbrx",
                           "starcoder",   "command-r", "falcon", "falcon3",   "gpt-2",
                           "phi-2",       "bloom",     "mpt",    "stablelm2", "glm4",
                           "chatglm-bpe", "gpt-4o"})
    EXPECT_NO_THROW(byte_level_family(name, "test")) << name;
}

TEST(GgufTokenizerMetadata, GlmsTextsAreCutAsLlama3sAndBeginWithNoToken) {
  const ByteLevelFamily llama = byte_level_family("llama-bpe", "test");
  for (const char* name : {"glm4", "chatglm-bpe"}) {
    const ByteLevelFamily glm = byte_level_family(name, "test");
    EXPECT_EQ(glm.pre_tokenizer, llama.pre_tokenizer) << name;
    EXPECT_FALSE(glm.adds_bos) << name;
  }
}

TEST(GgufTokenizerMetadata, PreTokenizersAreKnownInTheSpellingsOfTheirOwnFiles) {
  for (const char* name : {"llama-bpe", "qwen2", "gpt-2", "smollm", "olmo", "tekken", "gpt-4o",
                           "command-r", "bloom", "deepseek-v3"}) {
    const ByteLevelFamily family = byte_level_family(name, "test");
    const json document = byte_level_document(family, json::object(), json::array(), json::array(),
                                              std::nullopt, std::nullopt);
    EXPECT_EQ(byte_level_pre(document), name);
  }
  // GPT-NeoX leaves use_regex out.
  const json neox = {{"pre_tokenizer",
                      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}},
                     {"normalizer", {{"type", "NFC"}}}};
  EXPECT_EQ(byte_level_pre(neox), "olmo");
}

TEST(GgufTokenizerMetadata, APreTokenizerWithoutANameIsRefused) {
  const test::TempDir dir;
  ByteLevelFamily family = byte_level_family("gpt-2", "test");
  family.pre_tokenizer["add_prefix_space"] = true;
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_byte_letters(std::string(1, static_cast<char>(byte)), letter);
    vocab[letter] = byte;
  }
  dir.write("json/tokenizer.json", byte_level_document(family, vocab, json::array(), json::array(),
                                                       std::nullopt, std::nullopt)
                                       .dump());
  const auto tokenizer = load_tokenizer(dir / "json");
  EXPECT_THAT([&] { written(*tokenizer, {.rows = 256}); },
              ThrowsMessage<ConfigError>(HasSubstr("pre-tokenizer")));
}

TEST(SentencePieceProto, AModelIsReadAsItWasWritten) {
  SentencePieceModel model;
  model.pieces = {{"<unk>", 0, PieceType::kUnknown},
                  {"<s>", 0, PieceType::kControl},
                  {"▁a", -1.5f, PieceType::kNormal},
                  {"<0x00>", 0, PieceType::kByte}};
  model.bos_id = 1;
  model.add_dummy_prefix = false;
  const std::string bytes = serialize_model(model);
  const SentencePieceModel found = parse_model(bytes, "m");
  ASSERT_EQ(found.pieces.size(), model.pieces.size());
  for (size_t i = 0; i < found.pieces.size(); ++i) {
    EXPECT_EQ(found.pieces[i].text, model.pieces[i].text);
    EXPECT_EQ(found.pieces[i].score, model.pieces[i].score);
    EXPECT_EQ(found.pieces[i].type, model.pieces[i].type);
  }
  EXPECT_EQ(found.bos_id, 1);
  EXPECT_EQ(found.eos_id, -1);
  EXPECT_FALSE(found.add_dummy_prefix);
  EXPECT_EQ(found.kind, PieceModel::kBpe);
}

TEST(SentencePieceProto, WhatIsCutOffIsRefused) {
  SentencePieceModel model;
  model.pieces = {{"<unk>", 0, PieceType::kUnknown}};
  const std::string bytes = serialize_model(model);
  EXPECT_THAT([&] { parse_model(bytes.substr(0, bytes.size() - 1), "cut.model"); },
              ThrowsMessage<FormatError>(HasSubstr("cut.model")));
  EXPECT_THROW(parse_model("", "empty.model"), FormatError);
  EXPECT_THROW(parse_model("\xff\xff\xff", "no.model"), FormatError);
}

}  // namespace
}  // namespace qlora::data
