// Rows of every format with one value after the other replaced by what other programs write there:
// nulls where Arrow unified a struct, numbers as text, lists in lists. Whatever a row holds, it is
// trained or refused in words of our own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "data/tokenize_row.h"
#include "tests/data/byte_tokenizer.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;
using testing::HasSubstr;
using testing::Not;

const char* kTemplate =
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

struct FormatAndRow {
  std::string format;
  Json row;
};

std::vector<FormatAndRow> whole_rows() {
  return {
      {"alpaca", Json::parse(R"({"instruction": "i", "input": "n", "output": "o", "system": "s",
           "history": [["a", "b"], ["c", "d"]], "id": 1})")},
      {"chat", Json::parse(R"({"messages": [{"role": "system", "content": "s"},
           {"role": "user", "content": [{"type": "text", "text": "q"}], "name": "n"},
           {"role": "assistant", "content": null, "weight": 0, "tool_calls": [{"type": "function",
            "id": "1", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
           {"role": "tool", "content": "t", "tool_call_id": "1"},
           {"role": "assistant", "content": "a", "train": true, "masked": false}],
           "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": {}}}}],
           "loss_mask": [0, 0, 0, 0, 1], "chat_template_kwargs": {"enable_thinking": false}})")},
      {"sharegpt", Json::parse(R"({"conversations": [{"from": "human", "value": "q"},
           {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}", "loss": 0},
           {"from": "observation", "value": "t"}, {"from": "gpt", "value": "a", "train": true}],
           "system": "s", "tools": "[{\"name\": \"f\"}]", "loss_mask": [0, 0, 0, 1]})")},
      {"chat", Json::parse(R"({"messages": [{"role": "user", "content": "q"},
           {"role": "assistant", "content": null, "function_call": {"name": "f",
            "arguments": "{}"}}, {"role": "function", "name": "f", "content": "t"},
           {"role": "assistant", "content": "a", "reasoning_content": "r"}],
           "system": "s", "images": []})")},
      {"completion", Json::parse(R"({"prompt": "p", "completion": "c", "id": "1"})")},
      {"text", Json::parse(R"({"text": "t", "label": 1})")},
      {"pretokenized", Json::parse(R"({"input_ids": [1, 2, 3], "labels": [-100, 2, 3],
           "attention_mask": [1, 1, 0]})")},
      {"pretokenized", Json::parse(R"({"input_ids": [1, 2, 3], "loss_mask": [0, 1, 1]})")},
      {"preference", Json::parse(R"({"prompt": "p", "chosen": "c", "rejected": "d", "id": 1})")},
      {"preference", Json::parse(R"({"chosen": "How? So.", "rejected": "How? Not so."})")},
      {"preference", Json::parse(R"({"prompt": [{"role": "user", "content": "q"}],
           "chosen": [{"role": "assistant", "content": "a"}],
           "rejected": [{"role": "assistant", "content":
            [{"type": "text", "text": "b", "train": true}]}],
           "tools": [{"name": "f"}], "chat_template_kwargs": {"enable_thinking": false}})")},
      {"preference", Json::parse(R"({"conversations": [{"from": "human", "value": "q"}],
           "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"},
           "system": "s"})")},
  };
}

std::vector<Json> replacements(const Json& value) {
  std::vector<Json> all = {nullptr,
                           true,
                           false,
                           0,
                           -1,
                           1.5,
                           1e300,
                           12345678901234567890ULL,
                           "",
                           " ",
                           "x",
                           "1",
                           "[1]",
                           "{}",
                           Json::array(),
                           Json::object(),
                           Json{nullptr},
                           Json{{"type", nullptr}},
                           Json{{"a", 1}},
                           std::string(300, 'y')};
  all.push_back(Json::array({value}));
  all.push_back(Json::array({value, value}));
  all.push_back(Json{{"value", value}});
  return all;
}

void for_each_pointer(const Json& value, const Json::json_pointer& at,
                      const std::function<void(const Json::json_pointer&)>& visit) {
  visit(at);
  if (value.is_object())
    for (const auto& [key, child] : value.items()) for_each_pointer(child, at / key, visit);
  if (value.is_array())
    for (size_t i = 0; i < value.size(); ++i) for_each_pointer(value[i], at / i, visit);
}

class Rows {
 public:
  explicit Rows(const DataOptions& options)
      : rows_(tokenizer_, &template_, options, tokenizer_.vocab_size()) {}

  // What the row is refused with; empty if it is not.
  std::string refusal(const Json& row, const std::string& format) const {
    const DatasetOptions dataset{"a.jsonl", format, {}};
    try {
      rows_.tokenize(row, dataset);
      rows_.turns(row, dataset);
      return "";
    } catch (const FormatError& error) {
      return error.what();
    } catch (const std::exception& error) {
      return std::string("not a FormatError: ") + error.what();
    }
  }

 private:
  ByteTokenizer tokenizer_;
  ChatTemplate template_{kTemplate};
  RowTokenizer rows_;
};

TEST(RowMutations, WholeRowsAreTrained) {
  const Rows rows{DataOptions{}};
  for (const auto& [format, row] : whole_rows()) EXPECT_EQ(rows.refusal(row, format), "") << row;
}

TEST(RowMutations, EveryValueReplacedByAnotherIsTrainedOrRefusedInOurWords) {
  DataOptions all;
  all.train_on = TrainOn::kAll;
  DataOptions alpaca;
  alpaca.prompt_style = "alpaca";
  int tried = 0, refused = 0;
  const auto judge = [&](const Rows& rows, const Json& row, const std::string& format) {
    const std::string refusal = rows.refusal(row, format);
    ++tried;
    refused += !refusal.empty();
    for (const char* foreign : {"not a FormatError", "json.exception", "std::", "basic_string"})
      ASSERT_THAT(refusal, Not(HasSubstr(foreign)))
          << format << " " << row.dump(-1, ' ', true, Json::error_handler_t::replace);
  };
  for (const DataOptions& options : {DataOptions{}, all, alpaca}) {
    const Rows rows(options);
    for (const auto& [format, whole] : whole_rows())
      for_each_pointer(whole, Json::json_pointer(), [&](const Json::json_pointer& at) {
        for (const Json& other : replacements(whole[at])) {
          Json row = whole;
          row[at] = other;
          judge(rows, row, format);
        }
        if (at.empty()) return;
        Json row = whole;
        Json& parent = row[at.parent_pointer()];
        if (parent.is_array())
          parent.erase(std::stoul(at.back()));
        else
          parent.erase(at.back());
        judge(rows, row, format);
      });
  }
  EXPECT_GT(tried, 5000);
  EXPECT_GT(refused, tried / 4);
}

}  // namespace
}  // namespace qlora::data
