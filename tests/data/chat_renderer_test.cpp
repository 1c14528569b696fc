#include "data/chat_renderer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/tokenize_row.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/chat_ml.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using testing::HasSubstr;

const Json kQuestion = Json::parse(R"([{"role": "user", "content": "q"}])");

// Of a name that is too long for a file, and thus no file, the names that there are tell as ever.
TEST(ChatTemplateChoice, IsRefusedByNameWhereItIsNoFile) {
  const ByteTokenizer tokenizer;
  EXPECT_THROW(choose_chat_template(std::string(300, 'a'), tokenizer), ConfigError);
}

TEST(ChatRenderer, GivesTheTemplateTheSpecialTokensAndTheContext) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template("{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ mood }}");
  const ChatRenderer renderer(chat_template, tokenizer);
  EXPECT_EQ(renderer.render(kQuestion, Json{{"mood", "calm"}}, false), "<s></s>calm");
}

TEST(ChatRenderer, TheDateStandsStillUnlessARowSetsIt) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template("{{ date_string }}");
  const ChatRenderer renderer(chat_template, tokenizer);
  EXPECT_EQ(renderer.render(kQuestion, Json::object(), false), kDateString);
  EXPECT_EQ(renderer.render(kQuestion, Json{{"date_string", "now"}}, false), "now");
  EXPECT_FALSE(chat_template.has_read_clock());
  const ChatTemplate dated("{% set d = strftime_now('%d') %}{{ d }}");
  EXPECT_FALSE(dated.has_read_clock());
  ChatRenderer(dated, tokenizer).render(kQuestion, Json::object(), false);
  EXPECT_TRUE(dated.has_read_clock());
}

TEST(ChatRenderer, ABosThatTheTemplateWritesIsNotDoubled) {
  ByteTokenizer tokenizer;
  tokenizer.adds_bos = true;
  const std::vector<TokenId> expected = {ByteTokenizer::kBos, 'q'};
  EXPECT_EQ(conversation_prompt(kQuestion, ChatTemplate("{{ bos_token }}{{ messages[0].content }}"),
                                tokenizer),
            expected);
  EXPECT_EQ(conversation_prompt(kQuestion, ChatTemplate("{{ messages[0].content }}"), tokenizer),
            expected);
}

TEST(ChatRenderer, APromptMustNotEndWithAnAnswer) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template("{{ messages[0].content }}");
  EXPECT_THROW(conversation_prompt(Json::parse(R"([{"role": "user", "content": "q"},)"
                                               R"( {"role": "assistant", "content": "a"}])"),
                                   chat_template, tokenizer),
               FormatError);
  EXPECT_THROW(conversation_prompt(Json::array(), chat_template, tokenizer), FormatError);
}

TEST(ChatRenderer, ATemplateThatDropsAToolCallIsRefused) {
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(test::kChatMl);
  const Conversation conversation{
      Json::parse(R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "",)"
                  R"( "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}])")};
  const ChatRenderer renderer(chat_template, tokenizer);
  try {
    renderer.turns(conversation, PromptEncoder(tokenizer));
    FAIL();
  } catch (const FormatError& e) {
    EXPECT_THAT(e.what(), HasSubstr("does not know tool_calls"));
  }
}

TEST(ChooseChatTemplate, TakesAFileTextABuiltInOrTheModels) {
  const test::TempDir dir;
  ByteTokenizer tokenizer;
  EXPECT_EQ(choose_chat_template("", tokenizer), nullptr);
  tokenizer.template_text = "{{ 1 }}";
  EXPECT_EQ(choose_chat_template("", tokenizer)->source(), "{{ 1 }}");
  EXPECT_EQ(choose_chat_template("{{ 2 }}", tokenizer)->source(), "{{ 2 }}");
  EXPECT_EQ(choose_chat_template(dir.write("t.jinja", "{{ 3 }}"), tokenizer)->source(), "{{ 3 }}");
  EXPECT_EQ(choose_chat_template("chatml", tokenizer)->source(), builtin_chat_template("chatml"));
  EXPECT_THROW(choose_chat_template("no-such-template", tokenizer), ConfigError);
}

TEST(ChooseChatTemplate, APointerOrAPageInTheFilesPlaceIsNoTemplate) {
  const test::TempDir dir;
  const ByteTokenizer tokenizer;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n";
  for (const std::string& text : {pointer, std::string("\n<!DocType html><p>{{ 1 }}")})
    EXPECT_THROW(choose_chat_template(dir.write("t.jinja", text), tokenizer), FormatError) << text;
}

DataOptions alpaca_options(const std::vector<std::string>& formats) {
  DataOptions options;
  options.prompt_style = "alpaca";
  for (const std::string& format : formats) options.train.push_back({"rows.jsonl", format, {}});
  return options;
}

TEST(ChatRenderer, TheTemplateOfAlpacasPromptsWritesWhatIsTrained) {
  const ByteTokenizer tokenizer;
  const DataOptions options = alpaca_options({"alpaca", "completion"});
  const auto chat_template = choose_chat_template(options, tokenizer);
  ASSERT_NE(chat_template, nullptr);
  const RowTokenizer rows(tokenizer, chat_template.get(), options);
  const Json question = {{"role", "user"}, {"content", "Add 1 and 2."}};
  const Json row = {{"instruction", "Add 1 and 2."}, {"output", "3"}};
  EXPECT_EQ(conversation_prompt(Json::array({question}), *chat_template, tokenizer),
            rows.prompt_ids(rows.turns(row, options.train[0]).front()));
  const Json system = {{"role", "system"}, {"content", "Be brief."}};
  const Json with_system = {
      {"instruction", "Add 1 and 2."}, {"output", "3"}, {"system", "Be brief."}};
  EXPECT_EQ(conversation_prompt(Json::array({system, question}), *chat_template, tokenizer),
            rows.prompt_ids(rows.turns(with_system, options.train[0]).front()));
}

TEST(ChatRenderer, OnlyPromptsOfAlpacaAloneChangeTheTemplate) {
  ByteTokenizer tokenizer;
  tokenizer.template_text = "{{ 1 }}";
  const auto source = [&](const DataOptions& options) {
    return choose_chat_template(options, tokenizer)->source();
  };
  EXPECT_EQ(source(alpaca_options({"alpaca", "text"})), builtin_chat_template("alpaca"));
  EXPECT_EQ(source(alpaca_options({"alpaca", "chat"})), "{{ 1 }}");
  EXPECT_EQ(source(alpaca_options({"completion"})), "{{ 1 }}");
  EXPECT_EQ(source(alpaca_options({})), "{{ 1 }}");
  DataOptions options = alpaca_options({"alpaca"});
  options.chat_template = "{{ 2 }}";
  EXPECT_EQ(source(options), "{{ 2 }}");
  options = alpaca_options({"alpaca"});
  options.prompt_style = "chat_template";
  EXPECT_EQ(source(options), "{{ 1 }}");
}

}  // namespace
}  // namespace qlora::data
