// Positions that are rows of a table (GPT-2, OPT).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "model/generate.h"
#include "model/kv_cache.h"
#include "tests/support/small_models.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

// Takes what attention and MLP add to the stream away.
void silence(test::SmallModel& model) {
  for (auto& [name, tensor] : model.tensors)
    for (const char* part : {"c_proj.", "out_proj.", "fc2."})
      if (name.find(part) != std::string::npos) tensor.zero_();
}

struct Table {
  test::SmallModel model;
  std::string embedding, positions, last_norm;
  int64_t offset;
};

std::vector<Table> tables() {
  return {{test::small_gpt2(), "transformer.wte", "transformer.wpe", "transformer.ln_f", 0},
          {test::small_opt(), "model.decoder.embed_tokens", "model.decoder.embed_positions",
           "model.decoder.final_layer_norm", 2}};
}

TEST(LearnedPositions, AreTheRowsBehindTheOffsetOfEachDocumentsOwnPositions) {
  for (Table& table : tables()) {
    silence(table.model);
    const auto model = table.model.load();
    at::NoGradGuard no_grad;
    const ForwardInput input = test::tiny_input({3, 5});
    const at::Tensor rows = at::tensor({0, 1, 2, 0, 1, 2, 3, 4}, at::kLong) + table.offset;
    const at::Tensor stream =
        table.model.at(table.embedding + ".weight").index_select(0, at::tensor(input.tokens)) +
        table.model.at(table.positions + ".weight").index_select(0, rows);
    const at::Tensor expected =
        at::layer_norm(stream, {32}, table.model.at(table.last_norm + ".weight"),
                       table.model.at(table.last_norm + ".bias"), 1e-5);
    EXPECT_TRUE(at::allclose(model->hidden(input), expected, 1e-5, 1e-5)) << table.positions;
  }
}

TEST(LearnedPositions, ADocumentBeyondThemIsRefusedWithTheirNumber) {
  for (const Table& table : tables()) {
    const auto model = table.model.load();
    at::NoGradGuard no_grad;
    EXPECT_NO_THROW(model->hidden(test::tiny_input({24})));
    EXPECT_NO_THROW(model->hidden(test::tiny_input({20, 24, 1})));
    EXPECT_THAT(
        [&] {
          model->hidden(test::tiny_input({3, 25}));
        },
        ThrowsMessage<Error>(HasSubstr("24 positions")));
  }
}

TEST(LearnedPositions, LimitADocumentAndOthersDoNot) {
  for (const Table& table : tables())
    EXPECT_EQ(test::described(table.model.config).longest_document(), 24);
  for (const test::SmallModel& model : {test::small_gptj(), test::small_bloom()})
    EXPECT_EQ(test::described(model.config).longest_document(),
              std::numeric_limits<int64_t>::max());
}

// With what the cache has of the document.
TEST(LearnedPositions, GoOnBehindACache) {
  for (const Table& table : tables()) {
    const auto model = table.model.load();
    at::NoGradGuard no_grad;
    const ForwardInput whole = test::tiny_input({9});
    const at::Tensor expected = model->hidden(whole);
    KvCache cache(model->cache_widths(), 1, 9, at::kFloat, at::kCPU);
    for (const auto& [begin, end] : {std::pair(0, 5), {5, 8}, {8, 9}}) {
      ForwardInput part;
      part.tokens.assign(whole.tokens.begin() + begin, whole.tokens.begin() + end);
      part.positions.assign(whole.positions.begin() + begin, whole.positions.begin() + end);
      part.cu_seqlens = {0, end - begin};
      part.cache = &cache;
      EXPECT_TRUE(
          at::allclose(model->hidden(part), expected.narrow(0, begin, end - begin), 1e-4, 1e-5))
          << begin;
    }
  }
}

TEST(LearnedPositions, AnAnswerEndsWithTheLast) {
  const auto model = test::small_gpt2().load();
  GenerateOptions options;
  options.max_new_tokens = 10;
  const std::vector<int32_t> prompt(20, 7);
  const auto answers = generate(*model, {prompt, {1, 2, 3}}, options);
  EXPECT_EQ(answers.at(0).size(), 4u);
  EXPECT_EQ(answers.at(1).size(), 10u);
  EXPECT_THAT([&] { generate(*model, {std::vector<int32_t>(24, 7)}, options); },
              ThrowsMessage<ConfigError>(HasSubstr("24 positions")));
}

}  // namespace
}  // namespace qlora::model
