#include "data/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "data/exact_json.h"

namespace qlora::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const Json kConversation = Json::parse(R"([{"role": "system", "content": " Be kind. "},
  {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
  {"role": "user", "content": "Bye"}])");

std::string render(const std::string& source, const Json& context = Json::object()) {
  return ChatTemplate(source).render(kConversation, context, false);
}

// What the FormatError of a template says.
std::string error_of(const std::string& source, const Json& context = Json::object()) {
  try {
    render(source, context);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

TEST(ChatTemplate, TheOneForToolsRendersWhatHasTools) {
  const ChatTemplate both("plain", "t", "{% generation %}tools{% endgeneration %}{{ tools }}");
  const auto rendered = [&](const Json& context) {
    return both.render(kConversation, context, false);
  };
  EXPECT_EQ(rendered(Json::object()), "plain");
  EXPECT_EQ(rendered(Json{{"tools", nullptr}}), "plain");
  EXPECT_EQ(rendered(Json{{"tools", Json::array()}}), "tools[]");  // as in transformers
  const Json with_tools = {{"tools", Json::array({Json::object()})}};
  EXPECT_EQ(rendered(with_tools), "tools[{}]");
  EXPECT_FALSE(both.marks_generation(Json::object()));
  EXPECT_TRUE(both.marks_generation(with_tools));
  EXPECT_EQ(both.render_marked(kConversation, with_tools).generated.size(), 1u);
  EXPECT_EQ(both.source_for(Json::object()), "plain");
  EXPECT_EQ(both.source_for(with_tools), both.tool_use_source());
  EXPECT_EQ(ChatTemplate("plain").render(kConversation, with_tools, false), "plain");
}

TEST(ChatTemplate, WhatIsWrongWithTheOneForToolsIsToldWhereItIsUsed) {
  const ChatTemplate both("plain", "the template", "{% if %}");
  EXPECT_EQ(both.render(kConversation, Json::object(), false), "plain");
  try {
    both.render(kConversation, Json{{"tools", Json::array()}}, false);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the template 'tool_use'"));
  }
}

TEST(ChatTemplate, BlocksTakeTheirLineAlongAndSignsDecideOtherwise) {
  EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(render("a \n {%- if true -%} \n b {%+ endif +%}\nc"), "ab \nc");
  EXPECT_EQ(render(" {{ 1 }} \n{# gone #}\n {{- 2 -}} \n3"), " 1 \n23");
  EXPECT_EQ(render("{% raw %}{{ x }}{% endraw %}\r\nb"), "{{ x }}b");
}

TEST(ChatTemplate, OperatorsBindAndCountAsInPython) {
  EXPECT_EQ(render("{{ 1 + 2 * 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 ** 2 }}"),
            "7 -4 2 3.5 64");
  EXPECT_EQ(render("{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'b' in 'abc' }} {{ not 1 in [2] }}"),
            "True True True True");
  EXPECT_EQ(render("{{ 1e16 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 3.0 }}"),
            "1e+16 1000000000000000.0 0.30000000000000004 1e-05 3.0");
}

TEST(ChatTemplate, IntegersBeyond64BitsAreWrittenAsTheyStand) {
  const Json context = {{"n", exact_json("12345678901234567890")},
                        {"m", exact_json("-123456789012345678901234567890")}};
  EXPECT_EQ(render("{{ n }} {{ m }} {{ [n, m] | tojson }} {{ {'k': n} }}", context),
            "12345678901234567890 -123456789012345678901234567890 "
            "[12345678901234567890, -123456789012345678901234567890] "
            "{'k': 12345678901234567890}");
  EXPECT_EQ(
      render("{{ n is integer }} {{ n is number }} {{ n is string }} {{ n == n }} {{ n == m }}"
             " {{ n == 1 }} {{ n | int }} {{ n | string }}",
             context),
      "True True False True False False 12345678901234567890 12345678901234567890");
}

TEST(ChatTemplate, KindsOfCharactersAreThoseOfPython) {
  EXPECT_EQ(
      render(
          "{{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ '½'.isdigit() }}"
          " {{ '四'.isnumeric() }} {{ '४'.isdecimal() }} {{ '½'.isalnum() }} {{ 'ª'.isalpha() }}"),
      "True False True False True True True True");
  EXPECT_EQ(
      render("{{ 'ªb'.islower() }} {{ 'Ⓐ'.isupper() }} {{ 'ǅ'.istitle() }} {{ 'Ab Cd'.istitle() }}"
             " {{ 'Ab cd'.istitle() }} {{ 'a b'.isprintable() }} {{ ''.isprintable() }}"),
      "True True True True False False True");
  EXPECT_EQ(
      render(
          "{{ 'ßx ǆ ﬁn'.title() }} {{ 'ᾳ'.upper() }} {{ 'ΑΣ Σ'.lower() }} {{ 'aBß'.swapcase() }}"),
      "Ssx ǅ Fin ΑΙ ας σ AbSS");
}

TEST(ChatTemplate, ContainersPrintAsInPythonAndAsJson) {
  const Json context = {{"d", {{"b", 1}, {"a", {true, nullptr, 1.5, "it's ü\n"}}}}};
  EXPECT_EQ(render("{{ d }}", context), R"({'b': 1, 'a': [True, None, 1.5, "it's ü\n"]})");
  EXPECT_EQ(render("{{ d | tojson }}", context), R"({"b": 1, "a": [true, null, 1.5, "it's ü\n"]})");
  EXPECT_EQ(render("{{ {'a': [1, {}]} | tojson(indent=2) }}"),
            "{\n  \"a\": [\n    1,\n    {}\n  ]\n}");
  EXPECT_EQ(render("{{ '<ü>' | tojson(ensure_ascii=true) }}"), R"("<\u00fc>")");
}

TEST(ChatTemplate, FormatsPutValuesIntoTextAsInPython) {
  EXPECT_EQ(render("{{ '%s|%5.1f|%-4d|%05d|%x' % ('a', 2.25, 7, -42, 255) }}"),
            "a|  2.2|7   |-0042|ff");
  EXPECT_EQ(render("{{ '{} {x:>4} {:,} {:.1%} {:X}'.format(1, 1234567, 0.5, 48879, x='r') }}"),
            "1    r 1,234,567 50.0% BEEF");
}

TEST(ChatTemplate, StringsCountInCharacters) {
  const Json context = {{"s", "äöü👍"}};
  EXPECT_EQ(render("{{ s | length }}{{ s[1] }}{{ s[::-1] }}{{ s.find('ü') }}", context), "4ö👍üöä2");
  EXPECT_EQ(render("{{ 'straße' | upper }} {{ 'ΟΔΟΣ' | lower }}"), "STRASSE οδος");
}

TEST(ChatTemplate, ALoopSeesItsPlaceAndKeepsItsVariables) {
  EXPECT_EQ(render("{% set x = 0 %}{% for m in messages %}{% set x = x + 1 %}{{ loop.index }}"
                   "{{ m.role[0] }}{{ loop.nextitem.role if not loop.last }} {% endfor %}{{ x }}"),
            "1suser 2uassistant 3auser 4u 0");
  EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}"
                   "{% set ns.n = ns.n + loop.length %}{% endfor %}{{ ns.n }}"),
            "4");
  EXPECT_EQ(render("{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}"
                   "{% if x == 4 %}{% break %}{% endif %}{{ x }}{% else %}none{% endfor %}"),
            "023");
}

TEST(ChatTemplate, MacrosTakeDefaultsNamesAndCallers) {
  EXPECT_EQ(render("{% macro f(a, b=a) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}"
                   "{{ f(1) }} {{ f(b=2, a=3) }} {% call f(4) %}!{% endcall %}"),
            "11 32 44!");
}

TEST(ChatTemplate, AGeneratorIsTrueAndGivesItsItemsOnce) {
  EXPECT_EQ(render("{% set g = [] | select %}{{ 'true' if g else 'false' }}"), "true");
  EXPECT_EQ(render("{% set g = [1, 2] | map('string') %}{{ g | first }}{{ g | list }}"), "1['2']");
  EXPECT_THAT(error_of("{{ [1] | map('string') | length }}"), HasSubstr("has no len()"));
}

TEST(ChatTemplate, UndefinedPrintsNothingAndFailsWhenUsed) {
  EXPECT_EQ(render("[{{ nope }}{{ messages[0].nope }}{{ nope is defined }}]"), "[False]");
  EXPECT_THAT(error_of("{{ nope.x }}"), HasSubstr("'nope' is undefined"));
  EXPECT_THAT(error_of("{{ messages[0].nope + 'x' }}"),
              HasSubstr("'dict object' has no attribute 'nope'"));
}

TEST(ChatTemplate, ThoughtsHaveAllTheNamesThatTemplatesRead) {
  const Json messages = Json::parse(R"([{"role": "assistant", "reasoning": "hm", "content": ""}])");
  EXPECT_EQ(ChatTemplate("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}")
                .render(messages, Json::object(), false),
            "hmhm");
}

TEST(ChatTemplate, ErrorsShowLineColumnAndText) {
  EXPECT_THAT(error_of("first\n  {{ messages | nofilter }}\n"),
              AllOf(HasSubstr("chat template, line 2, column 17"), HasSubstr("nofilter"),
                    HasSubstr("at: {{ messages | nofilter }}")));
  EXPECT_THAT(error_of("ü {{ 1 + }}"), HasSubstr("line 1, column 10"));
  EXPECT_THAT(error_of("a\n{% if true %}\nb"),
              AllOf(HasSubstr("line 2, column 4"), HasSubstr("endif")));
  EXPECT_THAT(error_of("\n{{ raise_exception('roles must ' ~ 'alternate') }}"),
              AllOf(HasSubstr("line 2"), HasSubstr("roles must alternate")));
  EXPECT_THAT(error_of("{% macro f() %}{{ 1 // 0 }}{% endmacro %}\n{{ f() }}"),
              AllOf(HasSubstr("line 1, column 21"), HasSubstr("division by zero")));
}

TEST(ChatTemplate, WhatIsNoTemplateIsRefusedWhenItIsRead) {
  for (const char* source :
       {"{{ 1", "{% if %}{% endif %}", "{% nope %}", "{% endif %}", "{{ 'a }}", "{{ (1] }}",
        "{% for x in y %}", "{# open", "{% raw %}x", "{% break %}", "{% set true = 1 %}",
        "{{ f(a=1, 2) }}", "{{ '\\x4' }}", "{{ 99999999999999999999 }}", "{% include 'x' %}",
        "{{ \xff }}", "{{ a $ b }}", "{% macro f(a=1, b) %}{% endmacro %}"}) {
    EXPECT_THROW(ChatTemplate{source}, FormatError) << source;
  }
}

TEST(ChatTemplate, TheSandboxKeepsPythonAndTheMessagesOutOfReach) {
  EXPECT_EQ(render("{{ ''.__class__ is defined }}{{ [].append is defined }}"), "FalseFalse");
  EXPECT_THAT(error_of("{{ messages.append(1) }}"), HasSubstr("unsafe"));
  EXPECT_THAT(error_of("{{ ''.__class__.__mro__ }}"), HasSubstr("unsafe"));
}

TEST(ChatTemplate, CountingBeyond64BitsIsAnError) {
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ 2 ** 64 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ (-9223372036854775807 - 1) // -1 }}"), HasSubstr("64 bits"));
  EXPECT_EQ(render("{{ n }}", {{"n", UINT64_MAX}}), "18446744073709551615");
}

TEST(ChatTemplate, HostileTemplatesEndSoonWithAnError) {
  const std::string deep(5000, '(');
  std::string sum = "{{ 1", doubling = "{% set s = 'abcdefgh' %}", nested,
              pairs = "{% set s = [1] %}";
  for (int i = 0; i < 100'000; ++i) sum += "+1";
  for (int i = 0; i < 60; ++i) doubling += "{% set s = s + s %}";
  for (int i = 0; i < 60; ++i) pairs += "{% set s = [s, s] %}";
  for (int i = 0; i < 5000; ++i) nested += "{% if 1 %}";
  const std::vector<std::string> hostile = {
      "{{ " + deep + " }}",
      "{{ " + std::string(5000, '-') + "1 }}",
      "{{ " + std::string(5000, '[') + " }}",
      sum + " }}",
      nested,
      doubling,
      pairs + "{{ s }}",
      pairs + "{{ s | tojson }}",
      pairs + "{% set t = [s] %}{{ [s, 1] == [t[0], 2] }}{{ s | string }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(99999999999) %}{% endfor %}",
      "{{ range(9223372036854775807, -9223372036854775807, -9223372036854775807) | list }}"
      "{{ range(-9223372036854775807, 9223372036854775807) }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ 'x' * 999999999999 }}",
      "{{ [1] * 999999999999 }}",
      "{{ 'a' * 10000000 | replace('a', 'b' * 1000) }}{{ ('a' * 1000000) | replace('a', 'b' * "
      "100000) }}",
      "{{ ('a\n' * 1000000) | indent(9999) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ '{:999999999}'.format(1) }}",
      "{{ 'x'.center(999999999999) }}{{ 'x'.zfill(999999999999) }}",
      "{{ range(3) | batch(999999999999, 0) | list }}",
      "{{ range(3) | slice(999999999999) | list }}",
      "{% set ns = namespace() %}{% set ns.l = [ns] %}{{ ns }}{{ ns.l | tojson }}",
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor "
      "%}"
      "{{ ns.l }}",
      "{% for i in range(100000) %}{% set x = range(100000) | list %}{% endfor %}",
      "{% set a = 'x' * 60000000 %}{{ a }}{{ a }}",
      "{% set a = 'x' * 1000000 %}{% for i in range(100000) %}{{ a.find('y') }}{% endfor %}",
      "{{ strftime_now('%c' * 100000) }}",
      "{{ 1.5 | round(999999999) }}{{ '%.999999f' % 1.5 }}",
  };
  for (const std::string& source : hostile) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(error_of(source), "no error") << source.substr(0, 200);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    EXPECT_LT(spent.count(), 20) << source.substr(0, 200);
  }
}

TEST(ChatTemplate, OneTemplateRendersInManyThreads) {
  const ChatTemplate chat_template("{% for m in messages %}{{ m.content | trim }};{% endfor %}");
  std::vector<std::string> texts(8);
  std::vector<std::thread> threads;
  for (std::string& text : texts) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) text = chat_template.render(kConversation, nullptr, false);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(texts, testing::Each("Be kind.;Hi;Hello!;Bye;"));
}

// Each by the format's own description.
TEST(BuiltinChatTemplates, WriteTheirFormats) {
  const Json context = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const auto text = [&](const char* name, bool prompt) {
    return ChatTemplate(builtin_chat_template(name)).render(kConversation, context, prompt);
  };
  EXPECT_EQ(text("chatml", true),
            "<|im_start|>system\n Be kind. <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(text("llama-2", true),
            "<s>[INST] <<SYS>>\n Be kind. \n<</SYS>>\n\nHi [/INST] Hello! </s>"
            "<s>[INST] Bye [/INST]");
  EXPECT_EQ(text("llama-3", true),
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(text("alpaca", true),
            " Be kind. \n\n### Instruction:\nHi\n\n### Response:\nHello!</s>\n\n"
            "### Instruction:\nBye\n\n### Response:\n");
  EXPECT_EQ(text("vicuna", true),
            "<s> Be kind.  USER: Hi ASSISTANT: Hello!</s>USER: Bye ASSISTANT:");
  EXPECT_EQ(text("zephyr", false),
            "<|system|>\n Be kind. </s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n"
            "<|user|>\nBye</s>\n");
  EXPECT_EQ(text("mistral", true),
            "<s>[INST]  Be kind. \n\nHi [/INST] Hello!</s>[INST] Bye [/INST]");
  EXPECT_EQ(text("gemma", true),
            "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHello!<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n"
            "<start_of_turn>model\n");
  EXPECT_EQ(text("phi-3", true),
            "<|system|>\n Be kind. <|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
            "<|user|>\nBye<|end|>\n<|assistant|>\n");
}

TEST(BuiltinChatTemplates, BeginEveryAnswerWithTheirGenerationPrompt) {
  const Json context = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  Json question = kConversation, answered = kConversation;
  answered.push_back({{"role", "assistant"}, {"content", "See you."}});
  for (const char* name : {"chatml", "llama-2", "llama-3", "alpaca", "vicuna", "zephyr", "mistral",
                           "gemma", "phi-3"}) {
    const ChatTemplate chat_template(builtin_chat_template(name));
    EXPECT_THAT(chat_template.render(answered, context, false),
                testing::StartsWith(chat_template.render(question, context, true)))
        << name;
  }
}

TEST(BuiltinChatTemplates, AnUnknownNameListsThem) {
  try {
    builtin_chat_template("nope");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("chatml"), HasSubstr("phi-3"), HasSubstr("'nope'")));
  }
}

}  // namespace
}  // namespace qlora::data
