// Rows of conversations against transformers, without Python: chat_rows.json holds rows with tool
// calls in every form, thoughts, marks and system messages, and for two templates the text of each
// example and its trained spans, as apply_chat_template gives them (tests/interop/data_masks.py
// says how).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/exact_json.h"
#include "data/tokenize_row.h"
#include "io/read_file.h"
#include "tests/data/byte_tokenizer.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;

Json vectors() { return exact_json(io::read_bytes(QLORA_SOURCE_DIR "/tests/data/chat_rows.json")); }

// The key of the expected examples, the key of the template, and what the recipe says.
struct Variant {
  const char* key;
  const char* chat_template;
  TrainOn train_on = TrainOn::kAssistant;
  const char* system = "";
};

constexpr Variant kVariants[] = {{"plain", "plain"},
                                 {"last", "plain", TrainOn::kLast},
                                 {"system", "plain", TrainOn::kAssistant, "From the recipe."},
                                 {"marked", "marked"},
                                 {"marked_last", "marked", TrainOn::kLast}};

TEST(ChatVectors, TextsAndMasksAreThoseOfTransformers) {
  const Json file = vectors();
  const ByteTokenizer tokenizer;
  int compared = 0;
  for (const Variant& variant : kVariants) {
    const ChatTemplate chat_template(file[variant.chat_template].get<std::string>());
    DataOptions options;
    options.train_on = variant.train_on;
    const RowTokenizer rows(tokenizer, &chat_template, options);
    for (const Json& item : file["rows"]) {
      DatasetOptions dataset{"rows.jsonl", item["format"].get<std::string>(), {}};
      dataset.system = variant.system;
      const TokenizedRow row = rows.tokenize(item["row"], dataset);
      const Json& expected = item[variant.key];
      SCOPED_TRACE(std::string(variant.key) + ": " + item["row"].dump());
      ASSERT_EQ(row.examples.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        const Example& example = row.examples[i];
        EXPECT_EQ(tokenizer.decode(example.tokens, false),
                  file["texts"][expected[i][0].get<size_t>()].get<std::string>());
        EXPECT_EQ(test::supervised_text(tokenizer, example.tokens, example.supervised),
                  expected[i][1].get<std::string>());
        ++compared;
      }
      EXPECT_FALSE(row.loses_tools);
    }
  }
  EXPECT_GT(compared, 80);
}

}  // namespace
}  // namespace qlora::data
