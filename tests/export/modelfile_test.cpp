// TEMPLATE and SYSTEM of Modelfiles render what the chat template does, read as Ollama reads them.
#include "export/modelfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "data/chat_renderer.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/export/go_text.h"

namespace qlora::exporting {
namespace {
using data::ChatTemplate;
using data::Json;
using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const test::ByteTokenizer kTokenizer;

Modelfile of(const std::string& source) {
  const ChatTemplate chat_template(source);
  return modelfile("FROM x\n", kTokenizer, &chat_template);
}

// What stands between the threefold quotes behind the name.
std::optional<std::string> quoted(const std::string& text, const std::string& name) {
  const size_t at = text.find(name + " \"\"\"");
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = at + name.size() + 4;
  return text.substr(begin, text.find("\"\"\"\n", begin) - begin);
}

// As Ollama asks: BOS is put in front of what the template gives, SYSTEM in front of messages
// without one.
std::string by_ollama(const Modelfile& file, Json messages) {
  const auto system = quoted(file.text, "SYSTEM");
  if (system && messages[0]["role"] != "system")
    messages.insert(messages.begin(), Json{{"role", "system"}, {"content", *system}});
  return test::GoText(quoted(file.text, "TEMPLATE").value_or("no TEMPLATE")).render(messages);
}

Modelfile with_system(const std::string& source, const std::string& system) {
  const ChatTemplate chat_template(source);
  data::TrainedPrompts trained;
  trained.system = system;
  return modelfile("FROM x\n", kTokenizer, &chat_template, trained);
}

std::string by_jinja(const std::string& source, const Json& messages) {
  const ChatTemplate chat_template(source);
  std::string text =
      data::ChatRenderer(chat_template, kTokenizer).render(messages, Json::object(), true);
  if (text.starts_with("<s>")) text.erase(0, 3);
  return text;
}

Json turns(size_t count, const std::string& system = "") {
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  for (size_t i = 0; i < count; ++i)
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"},
                        {"content", "Text " + std::to_string(i) + ",\n\n{{two}} <b> & \"more\"."}});
  return messages;
}

void expect_same(const std::string& source, const std::string& name, bool with_system = true) {
  const Modelfile file = of(source);
  EXPECT_FALSE(file.lacks_template) << name;
  for (const size_t count : {1, 3, 5, 9}) {
    EXPECT_EQ(by_ollama(file, turns(count)), by_jinja(source, turns(count))) << name << count;
    if (!with_system) continue;
    const Json messages = turns(count, "Be {brief}.\nAnd kind.");
    EXPECT_EQ(by_ollama(file, messages), by_jinja(source, messages)) << name << count;
  }
}

TEST(Modelfile, TheTemplateOfEveryBuiltInOneRendersTheSame) {
  for (const std::string& name : data::builtin_chat_template_names())
    expect_same(data::builtin_chat_template(name), name);
}

TEST(Modelfile, OfBuiltInOnesWithAWordOfTheirOwnItIsTheSystemMessage) {
  EXPECT_THAT(of(data::builtin_chat_template("alpaca")).text,
              HasSubstr("\nSYSTEM \"\"\"Below is an instruction that describes a task. Write a "
                        "response that appropriately completes the request.\"\"\"\n"));
  EXPECT_THAT(of(data::builtin_chat_template("vicuna")).text,
              HasSubstr("\nSYSTEM \"\"\"A chat between a curious user and an artificial"));
  EXPECT_THAT(of(data::builtin_chat_template("llama-2")).text, Not(HasSubstr("SYSTEM")));
}

constexpr const char* kTurns =
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

TEST(Modelfile, TemplatesOfModelsAreReadTheSameWay) {
  const std::string turns = kTurns;
  expect_same(turns, "plain");
  // As Llama 3.2's, which begins every conversation with words of its own.
  expect_same(
      "{{ bos_token }}<|system|>Today Date: {{ date_string }}\n"
      "{% if messages[0].role == 'system' %}{{ messages[0].content }}"
      "{% set messages = messages[1:] %}{% endif %}<|im_end|>" +
          turns,
      "words of its own");
  expect_same(
      "{% for m in messages %}{{ '{' + m.role + '{{' + m.content + '}}{' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '{assistant{{' }}{% endif %}",
      "braces");
  // As DeepSeek's, where the system message has no marks.
  expect_same(
      "{% for m in messages %}{% if m.role == 'user' %}Q: {% elif m.role == 'assistant' %}"
      "A: {% endif %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
      "{% if add_generation_prompt %}A:{% endif %}",
      "no marks");
}

TEST(Modelfile, WhatOllamaDoesOtherwiseIsTold) {
  EXPECT_THAT(of(kTurns).differences, IsEmpty());
  EXPECT_THAT(of(data::builtin_chat_template("chatml")).differences, IsEmpty());
  EXPECT_THAT(of(data::builtin_chat_template("llama-2")).differences,
              ElementsAre(HasSubstr("white space")));
  const std::string refuses =
      "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}";
  const Modelfile refusing = of(refuses + kTurns);
  expect_same(refuses + kTurns, "refuses", false);
  EXPECT_THAT(refusing.differences, ElementsAre(HasSubstr("takes no system message")));
  EXPECT_EQ(by_ollama(refusing, turns(1, "Be brief.")),
            "<|user|>Be brief.\n\n" + by_jinja(kTurns, turns(1)).substr(8));
  const std::string leaves_out =
      "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}";
  expect_same(leaves_out, "leaves out");
  EXPECT_THAT(of(leaves_out).differences, ElementsAre(HasSubstr("leaves system messages out")));
  EXPECT_THAT(of(std::string("{% if tools %}{{ tools }}{% endif %}") + kTurns).differences,
              ElementsAre(HasSubstr("tools")));
}

TEST(Modelfile, WhatCannotBeSaidHasNoTemplateAndIsTold) {
  for (const char* source :
       {"{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",
        "{% for m in messages %}\"\"\"{{ m.content }}\"\"\"{% endfor %}",
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}.{% endfor %}",
        "{{ raise_exception('no') }}"}) {
    const Modelfile file = of(source);
    EXPECT_TRUE(file.lacks_template) << source;
    EXPECT_THAT(file.text, Not(HasSubstr("TEMPLATE"))) << source;
    EXPECT_THAT(file.differences, ElementsAre(HasSubstr("has no `TEMPLATE`"))) << source;
  }
  EXPECT_FALSE(modelfile("FROM x\n", kTokenizer, nullptr).lacks_template);
}

TEST(Modelfile, ASystemMessageOfTheTrainingIsInPlaceOfTheTemplatesOwn) {
  const ChatTemplate chat_template(data::builtin_chat_template("chatml"));
  data::TrainedPrompts trained;
  trained.system = "Answer like\na \"pirate\".";
  const Modelfile file = modelfile("FROM x\n", kTokenizer, &chat_template, trained);
  EXPECT_EQ(quoted(file.text, "SYSTEM"), trained.system);
  Json messages = turns(1);
  const std::string asked = by_ollama(file, messages);
  messages.insert(messages.begin(), Json{{"role", "system"}, {"content", trained.system}});
  EXPECT_EQ(asked, by_jinja(data::builtin_chat_template("chatml"), messages));
}

TEST(Modelfile, ASystemMessageMayBeginAndEndWithQuotes) {
  for (const std::string system : {"\"Yes\"", "\"\"", "\"\nAnd no: \"\"", "Say \"no\""}) {
    const Modelfile file = with_system(kTurns, system);
    EXPECT_THAT(file.text, HasSubstr("\nSYSTEM \"\"\"" + system + "\"\"\"\n"));
    EXPECT_THAT(file.text, HasSubstr("TEMPLATE"));
    EXPECT_THAT(file.differences, IsEmpty());
  }
}

TEST(Modelfile, ASystemMessageThatCannotBeSaidIsToldAndLeavesTheTemplate) {
  const Modelfile file = with_system(kTurns, "Begin with \"\"\" and\nend so.");
  EXPECT_FALSE(file.lacks_template);
  EXPECT_THAT(file.text, AllOf(HasSubstr("TEMPLATE"), Not(HasSubstr("SYSTEM"))));
  EXPECT_THAT(file.differences, ElementsAre(HasSubstr("has no `SYSTEM`")));
}

TEST(Modelfile, ASystemMessageOfTheTrainingIsWrittenWithoutATemplateToo) {
  const Modelfile file =
      with_system("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "Be brief.");
  EXPECT_TRUE(file.lacks_template);
  EXPECT_THAT(file.text,
              AllOf(HasSubstr("SYSTEM \"\"\"Be brief.\"\"\"\n"), Not(HasSubstr("TEMPLATE"))));
}

// As Qwen 3's and DeepSeek-R1's.
TEST(Modelfile, ThoughtsThatTheTemplateTakesOffEarlierAnswersAreTold) {
  const std::string strips =
      "{% for m in messages %}{% set c = m.content %}"
      "{% if m.role == 'assistant' and '</think>' in c %}{% set c = c.split('</think>')[-1] %}"
      "{% endif %}<|{{ m.role }}|>{{ c }}<|im_end|>{% endfor %}"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}";
  expect_same(strips, "strips");
  EXPECT_THAT(of(strips).differences, ElementsAre(HasSubstr("before `</think>`")));
}

TEST(Modelfile, PromptsThatWereTrainedAsTheyAreGetNothingAroundThem) {
  const ChatTemplate chat_template(data::builtin_chat_template("chatml"));
  for (const std::string separator : {"", "\n\n### Answer:\n", " {{ \"x\" }}"}) {
    data::TrainedPrompts trained;
    trained.are_raw = true;
    trained.separator = separator;
    const Modelfile file = modelfile("FROM x\n", kTokenizer, &chat_template, trained);
    const std::string in_go = separator.starts_with(" {{") ? R"({{ " {{ \"x\" }}" }})" : separator;
    const auto chat = quoted(file.text, "TEMPLATE");
    ASSERT_TRUE(chat);
    EXPECT_THAT(*chat, AllOf(EndsWith("{{ $p }}" + in_go), Not(HasSubstr(".Prompt"))));
    EXPECT_THAT(file.text, AllOf(Not(HasSubstr("SYSTEM")), Not(HasSubstr("im_start")),
                                 HasSubstr("PARAMETER stop \"</s>\"\n")));
    EXPECT_THAT(file.differences, ElementsAre(HasSubstr("prompts as they are")));
    if (in_go != separator) continue;
    // Alone, whatever stands before it.
    EXPECT_EQ(test::GoText(*chat).render(turns(3, "Be brief.")),
              turns(3)[2]["content"].get<std::string>() + separator);
  }
}

TEST(Modelfile, AnswersThatNoTokenEndsAreStoppedByTheirText) {
  constexpr const char* stop = "PARAMETER stop \"<|end|>\"\n";
  EXPECT_THAT(of(data::builtin_chat_template("phi-3")).text, HasSubstr(stop));
  EXPECT_THAT(of(data::builtin_chat_template("zephyr")).text,
              AllOf(HasSubstr("PARAMETER stop \"</s>\"\n"), Not(HasSubstr(stop))));
}

}  // namespace
}  // namespace qlora::exporting
