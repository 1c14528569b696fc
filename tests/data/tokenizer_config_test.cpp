// The files beside a vocabulary, each against what transformers makes of it.
#include "data/tokenizers/tokenizer_config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"
#include "data/tokenizers/generation_config.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// The ends of answers of a model with the tokens 0 to 4, of which "</s>" is 2.
std::vector<TokenId> ends(const TokenizerFiles& files) {
  Vocabulary vocabulary;
  int64_t id = 0;
  for (const char* token : {"a", "b", "</s>", "<end>", "<other>"})
    vocabulary.add(token, id++, "test");
  return resolve_special_tokens(parse_tokenizer_config(files, "model"), vocabulary, {})
      .end_of_generation;
}

TEST(EndsOfAnswers, AreThoseOfConfigJsonWhereGenerationConfigNamesNone) {
  const std::string roles = R"({"eos_token": "</s>"})";
  const auto with = [&](const char* config, const char* generation = nullptr) {
    TokenizerFiles files = {{"tokenizer_config.json", roles}, {"config.json", config}};
    if (generation) files["generation_config.json"] = generation;
    return ends(files);
  };
  EXPECT_THAT(with(R"({"eos_token_id": [2, 3]})"), ElementsAre(2, 3));
  EXPECT_THAT(with(R"({"eos_token_id": 4})"), ElementsAre(2, 4));
  EXPECT_THAT(with(R"({"text_config": {"eos_token_id": 3}})"), ElementsAre(2, 3));
  EXPECT_THAT(with(R"({"eos_token_id": [2, 3]})", R"({"temperature": 0.5})"), ElementsAre(2, 3));
  EXPECT_THAT(with(R"({"eos_token_id": [2, 3]})", R"({"eos_token_id": 4})"), ElementsAre(2, 4));
}

TEST(EndsOfAnswers, WhatIsNoTokenInConfigJsonIsNone) {
  for (const char* config :
       {R"({"eos_token_id": [5, 50256, -1, "2", null, 1.5]})", R"({"eos_token_id": 99999999999})",
        R"({"eos_token_id": null})", R"({"text_config": 3})", "[]", "{"})
    EXPECT_THAT(ends({{"config.json", config}}), IsEmpty()) << config;
}

TEST(TokenizerFiles, ConfigJsonIsReadAndNotWritten) {
  const test::TempDir dir;
  dir.write("config.json", R"({"eos_token_id": 3})");
  dir.write("tokenizer_config.json", "{}");
  const TokenizerFiles files = read_tokenizer_files(dir.path());
  EXPECT_TRUE(files.contains("config.json"));
  write_tokenizer_files(files, dir / "written");
  EXPECT_TRUE(std::filesystem::exists(dir / "written/tokenizer_config.json"));
  EXPECT_FALSE(std::filesystem::exists(dir / "written/config.json"));
}

std::string said_while(const std::function<void()>& work) {
  testing::internal::CaptureStderr();
  work();
  return testing::internal::GetCapturedStderr();
}

TEST(ChatTemplates, OfSeveralThatDifferTheFirstIsTakenAndTheOtherNamed) {
  const auto of = [](const std::string& text) { return R"({"chat_template": ")" + text + "\"}"; };
  const std::string list =
      R"({"chat_template": [{"name": "tool_use", "template": "T"},
                            {"name": "default", "template": "B"}]})";
  std::string taken;
  int count = 0;
  const auto said = [&](const TokenizerFiles& files) {
    return said_while([&] {  // a warning is said once a place
      taken = parse_tokenizer_config(files, fmt::format("templates-{}", ++count)).templates.chat;
    });
  };
  const auto expect = [&](const TokenizerFiles& files, const char* text, const char* other) {
    EXPECT_THAT(said(files), AllOf(HasSubstr("are two templates"), HasSubstr(other)));
    EXPECT_EQ(taken, text);
  };
  expect({{"chat_template.jinja", "A"}, {"tokenizer_config.json", of("B")}}, "A",
         "chat_template.jinja and the chat_template of tokenizer_config.json");
  expect({{"chat_template.jinja", "A"}, {"tokenizer_config.json", list}}, "A",
         "chat_template.jinja and the chat_template of tokenizer_config.json");
  expect({{"chat_template.jinja", "A"}, {"chat_template.json", of("B")}}, "A",
         "chat_template.jinja and the chat_template of chat_template.json");
  expect({{"tokenizer_config.json", of("A")}, {"chat_template.json", of("B")}}, "A",
         "the chat_template of tokenizer_config.json and the chat_template of chat_template.json");
  for (const TokenizerFiles& files :
       {TokenizerFiles{{"chat_template.jinja", "B"}, {"tokenizer_config.json", list}},
        TokenizerFiles{{"chat_template.jinja", "B"}, {"tokenizer_config.json", of("B")}},
        TokenizerFiles{{"tokenizer_config.json", list}, {"chat_template.json", of("B")}},
        TokenizerFiles{{"tokenizer_config.json", "{}"}, {"chat_template.json", of("B")}}}) {
    EXPECT_EQ(said(files), "");
    EXPECT_EQ(taken, "B");
  }
}

TEST(SpecialTokensMap, OverrulesAConfigWithoutAddedTokensDecoder) {
  const std::string map = R"({"eos_token": {"content": "<end>"}, "pad_token": "b"})";
  TokenizerConfig config;
  const auto parse = [&](const char* json, const char* place) {
    config = parse_tokenizer_config(
        {{"tokenizer_config.json", json}, {"special_tokens_map.json", map}}, place);
  };
  EXPECT_THAT(said_while([&] { parse(R"({"eos_token": "</s>", "bos_token": "a"})", "first"); }),
              AllOf(HasSubstr("first: eos_token is '</s>' in tokenizer_config.json"),
                    HasSubstr("that of special_tokens_map.json is used")));
  EXPECT_EQ(config.roles["eos_token"], "<end>");
  EXPECT_EQ(config.roles["bos_token"], "a");
  EXPECT_EQ(config.roles["pad_token"], "b");
  const char* with_decoder =
      R"({"eos_token": "</s>", "added_tokens_decoder": {"2": {"content": "</s>"}}})";
  EXPECT_THAT(said_while([&] { parse(with_decoder, "second"); }),
              HasSubstr("that of tokenizer_config.json is used"));
  EXPECT_EQ(config.roles["eos_token"], "</s>");
  EXPECT_EQ(said_while([&] { parse(R"({"eos_token": "<end>"})", "third"); }), "");
}

ModelTemplates templates_of(const TokenizerFiles& files, const std::string& place,
                            std::string& said) {
  ModelTemplates found;
  said = said_while([&] { found = parse_tokenizer_config(files, place).templates; });
  return found;
}

TEST(ChatTemplateFiles, TheFileOfItsOwnGoesBeforeTheConfigsAndBothAreNamedIfTheyDiffer) {
  std::string said;
  TokenizerFiles files = {{"chat_template.jinja", "{{ 1 }}"},
                          {"tokenizer_config.json", R"({"chat_template": "{{ 2 }}"})"}};
  EXPECT_EQ(templates_of(files, "first", said), (ModelTemplates{"{{ 1 }}", ""}));
  EXPECT_THAT(said, HasSubstr("first: chat_template.jinja and the chat_template of"));
  files["chat_template.jinja"] = "{{ 2 }}";
  EXPECT_EQ(templates_of(files, "second", said), (ModelTemplates{"{{ 2 }}", ""}));
  EXPECT_EQ(said, "");
}

TEST(ChatTemplateFiles, OfNamedOnesDefaultAndToolUseAreTaken) {
  std::string said;
  const auto of_list = [&](const char* list, const char* place) {
    return templates_of(
        {{"tokenizer_config.json", std::string(R"({"chat_template": )") + list + "}"}}, place,
        said);
  };
  const char* both =
      R"([{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": "{{ 2 }}"}])";
  EXPECT_EQ(of_list(both, "first"), (ModelTemplates{"{{ 2 }}", "{{ 1 }}"}));
  EXPECT_EQ(said, "");
  EXPECT_EQ(of_list(R"([{"name": "default", "template": "{{ 2 }}"},
                        {"name": "rag", "template": "{{ 3 }}"}])",
                    "second"),
            (ModelTemplates{"{{ 2 }}", ""}));
  EXPECT_EQ(said, "");  // which transformers takes by name alone
  EXPECT_EQ(of_list(R"([{"name": "tool_use", "template": "{{ 1 }}"}])", "third"), ModelTemplates());
  EXPECT_THAT(said, HasSubstr("chat templates (tool_use) is named 'default'"));
}

TEST(ChatTemplateFiles, TheFileForToolsStandsBesideEitherOther) {
  std::string said;
  TokenizerFiles files = {{"additional_chat_templates/tool_use.jinja", "{{ 1 }}"},
                          {"additional_chat_templates/rag.jinja", "{{ 2 }}"}};
  EXPECT_EQ(templates_of(files, "alone", said), ModelTemplates());
  EXPECT_THAT(said,
              HasSubstr("alone: beside additional_chat_templates/tool_use.jinja there is no"));
  files["tokenizer_config.json"] = R"({"chat_template": "{{ 3 }}"})";
  EXPECT_EQ(templates_of(files, "beside", said), (ModelTemplates{"{{ 3 }}", "{{ 1 }}"}));
  files["tokenizer_config.json"] = R"({"chat_template": [{"name": "default", "template": "{{ 3 }}"},
                                       {"name": "tool_use", "template": "{{ 4 }}"}]})";
  EXPECT_EQ(templates_of(files, "beside", said), (ModelTemplates{"{{ 3 }}", "{{ 1 }}"}));
  files["chat_template.jinja"] = "{{ 5 }}";
  EXPECT_EQ(templates_of(files, "beside", said), (ModelTemplates{"{{ 5 }}", "{{ 1 }}"}));
  files.erase("additional_chat_templates/tool_use.jinja");  // the list is then looked at by nobody
  EXPECT_EQ(templates_of(files, "beside", said), (ModelTemplates{"{{ 5 }}", ""}));
  EXPECT_EQ(said, "");
  files["additional_chat_templates/tool_use.jinja"] =
      "version https://git-lfs.github.com/spec/v1\n";
  EXPECT_THROW(parse_tokenizer_config(files, "beside"), FormatError);
}

TEST(ChatTemplateFiles, AdditionalOnesAreReadAndWritten) {
  const test::TempDir dir;
  dir.write("chat_template.jinja", "{{ 1 }}");
  dir.write("additional_chat_templates/tool_use.jinja", "{{ 2 }}");
  dir.write("additional_chat_templates/notes.txt", "no template");
  EXPECT_EQ(chat_templates_in(dir.path()), (ModelTemplates{"{{ 1 }}", "{{ 2 }}"}));
  write_tokenizer_files(read_tokenizer_files(dir.path()), dir / "written");
  EXPECT_EQ(chat_templates_in(dir / "written"), (ModelTemplates{"{{ 1 }}", "{{ 2 }}"}));
  EXPECT_FALSE(std::filesystem::exists(dir / "written/additional_chat_templates/notes.txt"));
}

// A tokenizer of which only the files beside it matter.
class WithFiles : public test::ByteTokenizer {
 public:
  explicit WithFiles(TokenizerFiles files) : files_(std::move(files)) {}
  const TokenizerFiles& files() const override { return files_; }

 private:
  TokenizerFiles files_;
};

std::string said_of_generation(const std::string& json, const std::string& place) {
  testing::internal::CaptureStderr();
  warn_of_generation_keys(WithFiles({{"generation_config.json", json}}), place);
  return testing::internal::GetCapturedStderr();
}

TEST(GenerationConfig, KeysThatWouldChangeAnswersAreNamedOnce) {
  const char* keys =
      R"({"repetition_penalty": 1.1, "suppress_tokens": [7], "num_beams": 1, "top_p": 0.8,
          "no_repeat_ngram_size": 0, "bad_words_ids": null, "begin_suppress_tokens": []})";
  EXPECT_THAT(
      said_of_generation(keys, "first"),
      AllOf(HasSubstr("first/generation_config.json"), HasSubstr("repetition_penalty 1.1"),
            HasSubstr("suppress_tokens [7]"), Not(HasSubstr("num_beams")), Not(HasSubstr("top_p")),
            Not(HasSubstr("no_repeat")), Not(HasSubstr("bad_words")), Not(HasSubstr("begin_"))));
  EXPECT_EQ(said_of_generation(keys, "first"), "");
  EXPECT_EQ(said_of_generation(R"({"repetition_penalty": 1.0, "do_sample": true})", "second"), "");
}

}  // namespace
}  // namespace qlora::data
