// Templates that say by {% generation %} blocks what is trained, and which of several answers are.
#include "data/marked_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using Mask = std::vector<uint8_t>;

TEST(MarkedText, ATokenIsTrainedIfAnyOfItsBytesIsMarked) {
  ByteTokenizer tokenizer;
  const PromptEncoder bytes(tokenizer);
  EXPECT_EQ(tokenize_marked("abcdef", {{2, 4}}, bytes).supervised, (Mask{0, 0, 1, 1, 0, 0}));
  EXPECT_EQ(tokenize_marked("abcdef", {{1, 2}, {5, 6}}, bytes).supervised,
            (Mask{0, 1, 0, 0, 0, 1}));
  EXPECT_EQ(tokenize_marked("abc", {}, bytes).supervised, (Mask{0, 0, 0}));
  tokenizer.merges = {"bc"};
  const PromptEncoder merging(tokenizer);
  for (const TextSpan span : {TextSpan{1, 2}, {2, 3}, {1, 3}}) {
    const Example example = tokenize_marked("abcd", {span}, merging);
    EXPECT_EQ(example.tokens, (std::vector<TokenId>{'a', ByteTokenizer::kFirstMerge, 'd'}));
    EXPECT_EQ(example.supervised, (Mask{0, 1, 0})) << span.begin << " " << span.end;
  }
}

TEST(MarkedText, NothingPredictsTheFirstTokenAndABosMovesTheOthers) {
  ByteTokenizer tokenizer;
  EXPECT_EQ(tokenize_marked("ab", {{0, 2}}, PromptEncoder(tokenizer)).supervised, (Mask{0, 1}));
  tokenizer.adds_bos = true;
  const PromptEncoder encoder(tokenizer);
  const Example added = tokenize_marked("ab", {{0, 1}}, encoder);
  EXPECT_EQ(added.tokens, (std::vector<TokenId>{ByteTokenizer::kBos, 'a', 'b'}));
  EXPECT_EQ(added.supervised, (Mask{0, 1, 0}));
  const Example written = tokenize_marked("<s>ab", {{3, 4}}, encoder);
  EXPECT_EQ(written.tokens, added.tokens);
  EXPECT_EQ(written.supervised, added.supervised);
}

// "begin-end begin-end" of what the blocks of a template write.
std::string spans_of(const std::string& source) {
  const auto marked = ChatTemplate(source).render_marked(
      Json::parse(R"([{"role": "user", "content": "q"}])"), Json::object());
  std::string text = marked.text;
  for (const TextSpan& span : marked.generated) text += fmt::format(" {}-{}", span.begin, span.end);
  return text;
}

TEST(ChatTemplate, KnowsWhatItsGenerationBlocksWrote) {
  EXPECT_EQ(spans_of("a{% generation %}é{{ 1 }}{% endgeneration %}b"), "aé1b 1-4");
  EXPECT_EQ(spans_of("a {%- generation %} b {%- endgeneration %} c"), "a b c 1-3");
  EXPECT_EQ(
      spans_of("{% for i in [1, 2] %}x{% generation %}{{ i }}{% endgeneration %}{% endfor %}"),
      "x1x2 1-2 3-4");
  EXPECT_EQ(spans_of("a{% generation %}{% endgeneration %}b"), "ab");
  // What a macro or a set block writes has no place in the text yet.
  EXPECT_EQ(spans_of("{% set x %}{% generation %}a{% endgeneration %}{% endset %}b{{ x }}"), "ba");
  EXPECT_TRUE(ChatTemplate("{% if false %}{% generation %}{% endgeneration %}{% endif %}")
                  .marks_generation());
  EXPECT_FALSE(ChatTemplate("generation").marks_generation());
}

const char* kPlain =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

// The same, which has the header of an answer trained and the newline behind it, as SmolLM3's has.
const char* kMarked =
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>{{ m.role "
    "}}\n"
    "{{ m.content }}<|im_end|>{{ '\\n' }}{% endgeneration %}{% else %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

// Three answers, with the marks of each.
std::string row_of(const std::vector<std::string>& marks, const std::string& behind = "") {
  std::string row = R"({"messages": [)";
  for (size_t i = 0; i < marks.size(); ++i)
    row += fmt::format(R"({}{{"role": "user", "content": "q"}},)"
                       R"({{"role": "assistant", "content": "{}"{}}})",
                       i == 0 ? "" : ",", i + 1, marks[i]);
  return row + behind + "]}";
}

struct Read {
  std::string trained;  // of all examples, their spans joined with '|', each example with '#'
  Dataset dataset;
};

Read read(const std::string& row, const std::string& template_text, TrainOn train_on,
          const std::string& format = "chat") {
  const TempDir dir;
  const ByteTokenizer tokenizer;
  const ChatTemplate chat_template(template_text);
  DataOptions options;
  options.train_on = train_on;
  Read result{"", read_dataset({dir.write("a.jsonl", row), format, {}}, 0, options, tokenizer,
                               &chat_template)};
  for (const Example& example : result.dataset.examples)
    result.trained += (result.trained.empty() ? "" : "#") +
                      test::supervised_text(tokenizer, example.tokens, example.supervised);
  return result;
}

std::string refusal(const std::string& row, const std::string& template_text,
                    TrainOn train_on = TrainOn::kAssistant) {
  try {
    audit_dataset(read(row, template_text, train_on).dataset.report, "train on", ByteTokenizer());
  } catch (const FormatError& e) {
    return e.what();
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

TEST(GenerationBlocks, SayWhatIsTrained) {
  const Read all = read(row_of({"", ""}), kMarked, TrainOn::kAssistant);
  EXPECT_EQ(all.trained,
            "<|im_start|>assistant\n1<|im_end|>\n|<|im_start|>assistant\n2<|im_end|>\n");
  EXPECT_EQ(all.dataset.report.end_of_turns, 2);
  EXPECT_EQ(all.dataset.report.end_of_turn_ids, (std::set<TokenId>{ByteTokenizer::kEnd}));
  // What stands behind the last trained answer is not read.
  EXPECT_EQ(read(row_of({"", ""}, R"(, {"role": "user", "content": "bye"})"), kMarked,
                 TrainOn::kAssistant)
                .dataset.examples[0]
                .tokens,
            all.dataset.examples[0].tokens);
  EXPECT_EQ(read(row_of({"", ""}), kPlain, TrainOn::kAssistant).trained, "1<|im_end|>|2<|im_end|>");
}

TEST(GenerationBlocks, OfAnswersThatAreContextOnlyAreNotTrained) {
  EXPECT_EQ(
      read(row_of({R"(, "weight": 0)", "", R"(, "train": false)"}), kMarked, TrainOn::kAssistant)
          .trained,
      "<|im_start|>assistant\n2<|im_end|>\n");
  EXPECT_EQ(read(row_of({"", ""}), kMarked, TrainOn::kLast).trained,
            "<|im_start|>assistant\n2<|im_end|>\n");
}

TEST(GenerationBlocks, ThatCannotBeToldApartAreRefusedWhereTheyMustBe) {
  const std::string two =
      "{% for m in messages %}{{ m.role }}{% generation %}<a>{% endgeneration %}"
      "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}";
  EXPECT_EQ(refusal(row_of({""}), two), "no error");
  EXPECT_THAT(
      refusal(row_of({R"(, "weight": 0)", ""}), two),
      AllOf(HasSubstr("a.jsonl:1: "), HasSubstr("writes 2 answers in 8 {% generation %} blocks"),
            HasSubstr("weight: 0")));
  EXPECT_THAT(refusal(row_of({""}),
                      "{% if messages == 1 %}{% generation %}a{% endgeneration %}"
                      "{% endif %}b"),
              HasSubstr("{% generation %} blocks write nothing of this conversation"));
}

TEST(GenerationBlocks, WithoutTheEndOfTurnTeachNoEnd) {
  const std::string open =
      "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>"
      "{% endfor %}";
  EXPECT_THAT(refusal(row_of({""}), open),
              AllOf(HasSubstr("would never learn to stop"), HasSubstr("{% generation %} block")));
}

// Of the byte tokenizer's special tokens </s> and <|im_end|> end turns.
TEST(Audit, NamesTheBuiltInTemplatesWhoseEndOfTurnIsASpecialToken) {
  EXPECT_THAT(refusal(row_of({""}), builtin_chat_template("phi-3")),
              HasSubstr("special token of the model (of the built-in ones: chatml, llama-2, "
                        "alpaca, vicuna, zephyr, mistral), and stands"));
  DatasetReport report;
  report.examples = 1;
  ByteTokenizer without;
  without.special = {};
  EXPECT_THAT(dataset_doubt(report, without), HasSubstr("(of the built-in ones: chatml), and"));
}

TEST(Audit, TakesEveryBuiltInTemplateThatItNames) {
  for (const std::string& name : builtin_templates_that_end(ByteTokenizer()))
    EXPECT_EQ(refusal(row_of({""}), builtin_chat_template(name)), "no error") << name;
}

TEST(TrainOnLast, TrainsTheLastAnswerThatIsToBeTrained) {
  EXPECT_EQ(read(row_of({"", "", ""}), kPlain, TrainOn::kLast).trained, "3<|im_end|>");
  EXPECT_EQ(read(row_of({"", "", R"(, "weight": 0)"}), kPlain, TrainOn::kLast).trained,
            "2<|im_end|>");
  const Read alpaca =
      read(R"({"instruction": "i", "output": "o", "history": [["a", "b"], ["c", "d"]]})", kPlain,
           TrainOn::kLast, "alpaca");
  EXPECT_EQ(alpaca.trained, "o<|im_end|>");
  EXPECT_EQ(ByteTokenizer().decode(alpaca.dataset.examples[0].tokens, false),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n"
            "<|im_start|>user\ni<|im_end|>\n<|im_start|>assistant\no<|im_end|>\n");
}

TEST(TrainOnLast, ATemplateThatRewritesEarlierTurnsGivesOneExample) {
  const std::string rewriting =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n"
      "{{ m.content if loop.last else m.content | upper }}.<|im_end|>\n"
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  const std::string row =
      R"({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "one"},)"
      R"( {"role": "user", "content": "Q"}, {"role": "assistant", "content": "two"}]})";
  EXPECT_EQ(read(row, rewriting, TrainOn::kAssistant).trained, "one.<|im_end|>#two.<|im_end|>");
  EXPECT_EQ(read(row, rewriting, TrainOn::kLast).trained, "two.<|im_end|>");
}

TEST(TrainOnLast, OfOtherRowsIsWhatIsTrainedAnyway) {
  EXPECT_EQ(
      read(R"({"prompt": "p", "completion": "c"})", kPlain, TrainOn::kLast, "completion").trained,
      "c</s>");
}

}  // namespace
}  // namespace qlora::data
