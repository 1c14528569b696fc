// One pass over a conversation must give what each of its beginnings gives by itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/chat_template.h"
#include "tests/data/byte_tokenizer.h"

namespace qlora::data {
namespace {

const Json kContext = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"date_string", "1 May 2024"}};

Json conversation(int turns, bool with_system, bool with_tools) {
  Json messages = Json::array();
  if (with_system) messages.push_back({{"role", "system"}, {"content", "Be kind."}});
  for (int i = 0; i < turns; ++i) {
    messages.push_back({{"role", "user"}, {"content", "question " + std::to_string(i)}});
    if (with_tools && i % 2 == 0) {
      const Json call = {{"type", "function"},
                         {"function", {{"name", "f"}, {"arguments", {{"i", i}}}}}};
      messages.push_back(
          {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({call})}});
      messages.push_back({{"role", "tool"}, {"content", "result"}});
      messages.push_back({{"role", "tool"}, {"content", "another"}});
    }
    messages.push_back({{"role", "assistant"}, {"content", "answer " + std::to_string(i)}});
  }
  return messages;
}

// How many beginnings one pass told; each is compared with its own rendering.
size_t count_told(const ChatTemplate& chat_template, const Json& messages, bool prompt) {
  std::vector<size_t> lengths(messages.size());
  std::iota(lengths.begin(), lengths.end(), 1);
  const auto prefixes = chat_template.render_prefixes(messages, kContext, prompt, lengths);
  for (const auto& [length, text] : prefixes.texts) {
    const Json first(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_EQ(text.over(prefixes.base), chat_template.render(first, kContext, prompt)) << length;
  }
  return prefixes.texts.size();
}

size_t count_told(const std::string& source) {
  const ChatTemplate chat_template(source);
  size_t told = 0;
  for (const bool with_system : {false, true}) {
    for (const bool with_tools : {false, true}) {
      const Json messages = conversation(5, with_system, with_tools);
      for (const bool prompt : {false, true}) told += count_told(chat_template, messages, prompt);
    }
  }
  return told;
}

size_t count_all() {
  size_t all = 0;
  for (const bool with_system : {false, true})
    for (const bool with_tools : {false, true})
      all += 2 * conversation(5, with_system, with_tools).size();
  return all;
}

TEST(Prefixes, APlainLoopTellsAllBeginnings) {
  EXPECT_EQ(count_told("{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}"
                       "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"),
            count_all());
}

TEST(Prefixes, BuiltInTemplatesTellWhatTheyGiveByThemselves) {
  for (const char* name : {"chatml", "llama-3", "zephyr", "phi-3"}) {
    EXPECT_EQ(count_told(builtin_chat_template(name)), count_all()) << name;
  }
  const Json plain = conversation(5, true, false);
  for (const char* name : {"llama-2", "alpaca", "vicuna", "mistral", "gemma"}) {
    const ChatTemplate chat_template(builtin_chat_template(name));
    for (const bool prompt : {false, true}) EXPECT_GT(count_told(chat_template, plain, prompt), 5u);
  }
}

TEST(Prefixes, TheEndIsSeenByTheLastMessageAlone) {
  EXPECT_EQ(count_told("{% for m in messages %}{{ loop.index }}{{ m.content }}"
                       "{% if loop.last %}!{% endif %}"
                       "{% if m.role == 'tool' and (loop.last or messages[loop.index0 + 1].role != "
                       "'tool') %}</tools>{% endif %}"
                       "{% if loop.nextitem is defined %}{{ loop.nextitem.role }}{% endif %}"
                       "{% endfor %}{{ messages | length }}{{ messages[-1].role }}"),
            count_all());
}

TEST(Prefixes, MessagesBehindTheSystemTextAreALoopToo) {
  const std::string source =
      "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set rest = messages[1:] %}"
      "{% else %}{% set rest = messages %}{% endif %}"
      "{% for m in rest %}{{ loop.index }}{{ m.content }}{% else %}none{% endfor %}.";
  EXPECT_EQ(count_told(source), count_all() - 4);  // not the system message alone
}

TEST(Prefixes, WhatATemplateChangesIsSetBack) {
  EXPECT_EQ(
      count_told("{% set ns = namespace(n=0) %}{% set c = cycler('a', 'b', 'c') %}"
                 "{% set j = joiner('-') %}{% set g = ['x', 'y', 'z'] | map('upper') %}"
                 "{% macro show(m) %}[{{ ns.n }}{{ m.content }}]{% endmacro %}"
                 "{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}"
                 "{{ j() }}{{ c.next() }}{{ show(m) }}{% if loop.changed(m.role) %}*{% endif %}"
                 "{% if loop.index == 3 %}{{ g | first }}{% endif %}{% endfor %}"
                 "{{ ns.n }}{{ ns.last }}{{ c.current }}{{ g | list }}"),
      count_all());
}

TEST(Prefixes, ALoopThatLooksAtTheEndFirstTellsNoneButTheWhole) {
  EXPECT_EQ(count_told("{% set ns = namespace(last=messages | length - 1) %}"
                       "{% for m in messages[::-1] %}{% if m.role == 'user' %}"
                       "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
                       "{% for m in messages %}{{ m.content }}{{ ns.last }}{% endfor %}"),
            0u);
}

// Templates that look through the messages before they write them, with what the first loop does.
std::string after_looking(const std::string& looking) {
  return "{% set ns = namespace(system=false, n=0, users=[]) %}" + looking +
         "{% if ns.system %}[{{ ns.system }}]{% endif %}"
         "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ ns.n }}{% if loop.last %}."
         "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
}

constexpr const char* kFindSystem =
    "{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}"
    "{% endif %}{% endfor %}";

TEST(Prefixes, ALoopThatOnlyLooksForSomethingLeavesAllToTheNext) {
  for (const std::string looking : {
           kFindSystem,
           "{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}"
           "{% break %}{% endif %}{% endfor %}",
           "{% for m in messages %}{% if m.role != 'none' %}{% set ns.n = 3 %}{% endif %}"
           "{% endfor %}",
           "{% for m in messages %}{% for n in messages[0:1] %}{% if n.role == 'x' %}"
           "{% set ns.n = 1 %}{% endif %}{% endfor %}{% endfor %}",
           "{% for m in messages if m.role == 'system' %}{% set ns.system = m.content %}"
           "{% endfor %}",
           "{% set s = messages | selectattr('role', 'equalto', 'system') | list %}"
           "{% if s | length > 0 %}{% set ns.system = s[0].content %}{% endif %}",
           "{% set s = messages | selectattr('role', 'equalto', 'none') | list %}{{ s | length }}",
           "{% if messages | length != 0 %}{% set ns.n = 1 %}"
           "{% endif %}",
           "{% set s = messages | rejectattr('role') | map(attribute='role') | list %}",
       })
    EXPECT_EQ(count_told(after_looking(looking)), count_all()) << looking;
}

TEST(Prefixes, WhatALoopChangesOrAsksOfTheEndIsExactAllTheSame) {
  for (const char* looking : {
           "{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}",
           "{% for m in messages %}{% if m.role == 'user' %}{% set ns.n = loop.index %}{% endif %}"
           "{% endfor %}",
           "{% for m in messages %}{% if loop.last %}{% set ns.n = m.role %}{% endif %}{% endfor "
           "%}",
           "{% for m in messages %}{% if loop.index == 3 %}{% set ns.n = loop.length %}{% endif %}"
           "{% endfor %}",
           "{% for m in messages %}{{ m.role }}{% endfor %}",
           "{% set all %}{% for m in messages %}{{ m.role }}{% endfor %}{% endset %}{{ all }}",
           "{% for m in messages %}{% if loop.first %}{% set ns.n = loop %}{% endif %}{% endfor %}"
           "{% set ns.n = ns.n.index %}",
           "{% for m in messages %}{% if loop.first %}{% set ns.n = {'of': [loop]} %}{% endif %}"
           "{% endfor %}{% set ns.n = ns.n.of[0].index %}",
           "{% for m in messages %}{% if loop.first %}{% macro at() %}{{ loop.index }}"
           "{% endmacro %}{% set ns.n = at %}{% endif %}{% endfor %}{% set ns.n = ns.n() %}",
           "{% set c = cycler('a', 'b') %}{% for m in messages %}{% set x = c.next() %}{% endfor %}"
           "{{ c.current }}",
           "{% set c = cycler('a', 'b', 'c') %}{% for m in messages if c.next() == 'd' %}"
           "{% endfor %}{{ c.current }}",
           "{% set g = [1, 2, 3] | map('string') %}{% for m in messages %}{% set x = g | first %}"
           "{% endfor %}{{ g | list }}",
           "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
           "{{ users | length }}{{ users[-1].content }}",
           "{% if messages | length > 6 %}a{% endif %}{% if messages | length == 7 %}b{% endif %}"
           "{% if messages | length <= 8 %}c{% endif %}{% if 9 < messages | length %}d{% endif %}"
           "{% if messages[2:] | length != 3 %}e{% endif %}{% set rest = messages[2:] %}"
           "{% if rest | length != 3 %}f{% endif %}{% if rest | length < 5 < 7 %}g{% endif %}",
           "{{ messages[0:2] | length }}{{ messages[:7] | length }}{{ messages[2:1] | length }}"
           "{{ messages[1:3][0].role }}{{ messages[1:][0:1] | length }}{{ messages[:-1] | length "
           "}}",
           "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.length }}"
           "{% endfor %}",
           "{% for i in [1, 2] %}{% for m in messages %}{% if m.role == 'user' %}"
           "{% set ns.n = i %}{% endif %}{% endfor %}{% endfor %}",
           "{% for m in messages %}{% if m.role == 'tool' %}{% set ns.system = 1 %}{% break %}"
           "{% endif %}{% endfor %}",
           "{% for i in [1, 2] %}{% for m in messages %}{% if loop.index == 4 %}"
           "{% if loop.changed(m.role) %}{% set ns.n = 1 %}{% endif %}{% endif %}{% endfor %}"
           "{% endfor %}",
       }) {
    count_told(after_looking(looking));
    count_told(after_looking(std::string(kFindSystem) + looking));
  }
}

TEST(Prefixes, ALoopBehindTheOneThatWritesChangesNothing) {
  const std::string writing = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
  EXPECT_EQ(count_told(writing + "{% for m in messages %}{{ m.role }}{% break %}{% endfor %}"),
            count_all());
  EXPECT_EQ(count_told(writing + writing), count_all());
}

TEST(Prefixes, LookingThroughTheMessagesFirstTakesNoMoreThanInProportion) {
  const ChatTemplate looks(after_looking(kFindSystem)), plain(after_looking(""));
  const auto work = [](const ChatTemplate& chat_template, int turns) {
    const Json messages = conversation(turns, false, false);
    std::vector<size_t> lengths(messages.size());
    std::iota(lengths.begin(), lengths.end(), 1);
    const auto prefixes = chat_template.render_prefixes(messages, kContext, true, lengths);
    EXPECT_EQ(prefixes.texts.size(), lengths.size());
    return static_cast<double>(prefixes.work);
  };
  EXPECT_LT(work(looks, 400) / work(looks, 100), 4.2);
  EXPECT_LT(work(looks, 400) / work(plain, 400), 2);
}

TEST(Prefixes, BeginningsAreThoseOfTheTemplateByItself) {
  const ChatTemplate chat_template(
      "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + loop.index %}"
      "{% endfor %}{% for m in messages %}{% if loop.index == 8 %}{{ raise_exception('no') }}"
      "{% endif %}{{ m.content }}{{ ns.n }}{{ messages | length }}{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}");
  const Json messages = conversation(5, true, false);
  for (const bool prompt : {false, true}) {
    ChatTemplate::Beginnings beginnings(chat_template, messages, kContext, prompt);
    for (const size_t length : {7, 3, 1, 7, 2}) {
      const Json first(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(length));
      EXPECT_EQ(beginnings.text(length), chat_template.render(first, kContext, prompt));
    }
    EXPECT_EQ(beginnings.text(8), std::nullopt);
    EXPECT_EQ(beginnings.text(7).has_value(), true);
  }
}

TEST(Prefixes, BeginningsKeepTheVariablesThatTheyWereGiven) {
  const ChatTemplate chat_template(
      "{{ a_name_that_no_string_holds_in_place }}{{ messages | length }}");
  const auto context = [] { return Json{{"a_name_that_no_string_holds_in_place", "kept"}}; };
  const auto messages = [] { return conversation(5, true, false); };
  ChatTemplate::Beginnings beginnings(chat_template, messages(), context(), false);
  const Json other = {{"a_name_that_takes_the_place_of_a_string", "lost"}};
  EXPECT_EQ(beginnings.text(2), "kept2");
  EXPECT_EQ(beginnings.text(1), "kept1");
}

TEST(Prefixes, LoopsWithinOthersAndBrokenOnesAreExactOrLeftOut) {
  for (const char* source : {
           "{% for i in [1, 2] %}{% for m in messages %}{{ i }}{{ m.content }}{% endfor %}{% "
           "endfor %}",
           "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.role }}"
           "{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}",
           "{% for m in messages %}{{ m.role }}{% endfor %}{% for m in messages %}{{ m.content }}"
           "{% endfor %}",
           "{% for m in messages if m.role != 'system' %}{{ loop.length }}{{ m.content }}{% endfor "
           "%}",
           "{% set all %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ all }}",
           "{% for m in messages %}{% for n in messages %}{{ n.role }}{% endfor %}{% endfor %}",
           "{{ messages }}{{ messages | tojson }}{{ messages[:2] }}{{ messages + messages }}",
           "{% if messages %}{% with x = messages[0] %}{% for m in messages %}{{ m.content }}"
           "{{ x.role }}{% endfor %}{% endwith %}{% endif %}",
       }) {
    count_told(source);
  }
}

TEST(Prefixes, AnErrorBehindABeginningLeavesWhatCameBeforeIt) {
  const ChatTemplate chat_template(
      "{% for m in messages %}{% if loop.index == 4 %}{{ raise_exception('no fourth') }}{% endif %}"
      "{{ m.content }}{% endfor %}");
  EXPECT_EQ(count_told(chat_template, conversation(5, false, false), false), 3u);
}

// Tells how much it encodes; texts may be cut behind control tokens, as with real tokenizers.
class CountingTokenizer : public test::ByteTokenizer {
 public:
  mutable size_t encoded = 0;  // bytes

  std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const override {
    encoded += text.size();
    return ByteTokenizer::encode(text, add_special_tokens);
  }
  std::vector<TokenId> encode_behind(std::string_view text, const TokenCut& from,
                                     std::vector<TokenCut>* cuts) const override {
    std::vector<TokenId> ids = encode(text.substr(from.offset), false);
    size_t offset = from.offset;
    for (size_t i = 0; cuts && i < ids.size(); ++i) {
      offset += id_to_token(ids[i]).size();
      if (is_special(ids[i])) cuts->push_back({offset, offset, from.num_ids + i + 1});
    }
    return ids;
  }
};

TEST(Prefixes, ARowOfManyTurnsIsTokenizedInProportionToItsLength) {
  const ChatTemplate chat_template(builtin_chat_template("chatml"));
  const auto encoded_for = [&](int turns) {
    const CountingTokenizer tokenizer;
    const PromptEncoder encoder(tokenizer);
    const ChatRenderer renderer(chat_template, tokenizer);
    const auto turns_of_row = renderer.turns({conversation(turns, false, false)}, encoder);
    const auto examples = tokenize_turns(turns_of_row, encoder);
    EXPECT_EQ(examples.size(), 1u);
    EXPECT_EQ(turns_of_row.size(), static_cast<size_t>(turns));
    return static_cast<double>(tokenizer.encoded);
  };
  EXPECT_LT(encoded_for(400) / encoded_for(100), 4.5);
}

// Eight times the turns take eight times the time, and 64 times where it grows with their square.
// The least of several times is hardly the machine's, and a ratio is no matter of its speed.
TEST(Prefixes, ARowOfManyTurnsTakesTimeInProportionToItsLength) {
  for (const std::string& source :
       {builtin_chat_template("chatml"),
        std::string("{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
                    "{% if add_generation_prompt %}assistant:{% endif %}")}) {
    const ChatTemplate chat_template(source);
    const CountingTokenizer tokenizer;
    const PromptEncoder encoder(tokenizer);
    const ChatRenderer renderer(chat_template, tokenizer);
    const auto time_of = [&](int turns) {
      const Conversation row{conversation(turns, false, false)};
      std::clock_t least = std::numeric_limits<std::clock_t>::max();
      for (int i = 0; i < 3; ++i) {
        const std::clock_t begin = std::clock();
        EXPECT_EQ(tokenize_turns(renderer.turns(row, encoder), encoder).size(), 1u);
        least = std::min(least, std::clock() - begin);
      }
      return static_cast<double>(least);
    };
    const double few = time_of(150), many = time_of(1200);
    EXPECT_LT(many, 24 * few) << source;
  }
}

TEST(Prefixes, CutsGiveTheMasksOfWholeEncodings) {
  for (const bool adds_bos : {false, true}) {
    for (const bool rewrites : {false, true}) {
      CountingTokenizer cutting;
      test::ByteTokenizer whole;
      cutting.adds_bos = whole.adds_bos = adds_bos;
      cutting.merges = whole.merges = {"\n\n", "an", ">q"};
      const ChatTemplate chat_template(rewrites
                                           ? "{% for m in messages %}<|im_start|>{% if loop.last "
                                             "and m.role == 'assistant' %}(so)"
                                             "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
                                             "{% if add_generation_prompt %}<|im_start|>{% endif %}"
                                           : builtin_chat_template("chatml"));
      const Conversation row{conversation(6, true, false), Json::object()};
      const auto examples_of = [&](const Tokenizer& tokenizer) {
        const PromptEncoder encoder(tokenizer);
        return tokenize_turns(ChatRenderer(chat_template, tokenizer).turns(row, encoder), encoder);
      };
      const auto ours = examples_of(cutting), expected = examples_of(whole);
      ASSERT_EQ(ours.size(), expected.size());
      for (size_t i = 0; i < ours.size(); ++i) {
        EXPECT_EQ(ours[i].tokens, expected[i].tokens);
        EXPECT_EQ(ours[i].supervised, expected[i].supervised);
      }
    }
  }
}

// The same, by rendering each beginning of the conversation by itself.
std::vector<Turn> slow_turns(const ChatRenderer& renderer, const Json& messages,
                             const PromptEncoder& encoder) {
  std::vector<Turn> turns;
  const auto render = [&](size_t length, bool prompt) {
    const Json first(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(length));
    return renderer.render(first, Json::object(), prompt);
  };
  for (size_t i = 0; i < messages.size(); ++i)
    if (messages[i]["role"] == "assistant")
      turns.push_back(make_turn(render(i, true), render(i + 1, false), encoder));
  return turns;
}

TEST(Prefixes, MasksAreThoseOfRenderingEachBeginningByItself) {
  std::vector<std::string> sources = {
      "{% set ns = namespace(system=false) %}" + std::string(kFindSystem) +
          builtin_chat_template("chatml"),
      // Rewrites what was thought before the last question.
      "{% set ns = namespace(last=0) %}{% for m in messages[::-1] %}"
      "{% if m.role == 'user' and ns.last == 0 %}{% set ns.last = messages | length - loop.index %}"
      "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}:"
      "{% if m.role == 'assistant' and loop.index0 > ns.last %}(so){% endif %}{{ m.content }}"
      "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}",
      // The same with a question marked, and no control token behind an answer.
      "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
      "{% for m in messages %}{% if m == users[-1] %}*{% endif %}{{ m.role }}: {{ m.content }}\n"
      "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"};
  for (const char* name :
       {"chatml", "llama-2", "llama-3", "alpaca", "vicuna", "zephyr", "mistral", "gemma", "phi-3"})
    sources.push_back(builtin_chat_template(name));
  const CountingTokenizer tokenizer;
  const PromptEncoder encoder(tokenizer);
  for (const std::string& source : sources) {
    const ChatTemplate chat_template(source);
    const ChatRenderer renderer(chat_template, tokenizer);
    for (const bool with_system : {false, true}) {
      const Json messages = conversation(8, with_system, false);
      const auto found = tokenize_turns(renderer.turns({messages}, encoder), encoder);
      const auto wanted = tokenize_turns(slow_turns(renderer, messages, encoder), encoder);
      ASSERT_EQ(found.size(), wanted.size()) << source;
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].tokens, wanted[i].tokens) << source;
        EXPECT_EQ(found[i].supervised, wanted[i].supervised) << source;
      }
    }
  }
}

}  // namespace
}  // namespace qlora::data
