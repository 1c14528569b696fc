#include "trainer/evaluate.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/progress.h"
#include "base/stopwatch.h"
#include "data/loader.h"
#include "model/generate.h"
#include "trainer/evaluation_passes.h"

namespace qlora::trainer {
namespace {

// The answer's text: ids up to the first that ends a generation.
std::string answer_text(const data::Tokenizer& tokenizer, const std::vector<int32_t>& ends,
                        std::vector<int32_t> ids) {
  const auto end = std::find_first_of(ids.begin(), ids.end(), ends.begin(), ends.end());
  ids.erase(end, ids.end());
  return tokenizer.decode(ids, true);
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Adds the losses of one pass to the rows they belong to.
void add_losses(const data::MicroBatch& batch, const std::vector<float>& losses,
                std::vector<RowLoss>& rows) {
  size_t next = 0;
  for (size_t d = 0; d < batch.examples.size(); ++d) {
    RowLoss& row = rows[static_cast<size_t>(batch.examples[d])];
    for (int32_t i = batch.cu_seqlens[d]; i < batch.cu_seqlens[d + 1]; ++i) {
      if (batch.targets[static_cast<size_t>(i)] == data::kIgnore) continue;
      row.nll += losses[next++];
      ++row.supervised_tokens;
    }
  }
}

}  // namespace

double Evaluation::perplexity() const { return std::exp(loss); }

Evaluation evaluate_loss(model::CausalLm& model, const data::Examples& examples,
                         bool adapters_enabled, int64_t tokens_per_pass,
                         distributed::Group* group) {
  const Stopwatch watch;
  Evaluation result;
  for (const data::ExampleView& example : examples) {
    result.rows.push_back({example.row, example.source, 0, 0});
    result.tokens += example.length();
  }
  for_each_pass(
      model, examples,
      {.adapters_enabled = adapters_enabled, .tokens_per_pass = tokens_per_pass, .group = group},
      [&](const data::MicroBatch& batch, const std::vector<int32_t>&,
          const std::vector<float>& losses) { add_losses(batch, losses, result.rows); });
  double sum = 0;
  for (const RowLoss& row : result.rows) {
    sum += row.nll;
    result.supervised_tokens += row.supervised_tokens;
  }
  if (result.supervised_tokens > 0) sum /= static_cast<double>(result.supervised_tokens);
  result.loss = sum;
  result.seconds = watch.seconds();
  return result;
}

ExactMatch evaluate_exact_match(model::CausalLm& model, const data::Tokenizer& tokenizer,
                                const std::vector<data::PromptAndAnswer>& questions,
                                int64_t max_new_tokens, bool adapters_enabled) {
  const Stopwatch watch;
  model::GenerateOptions options;
  options.max_new_tokens = max_new_tokens;
  options.adapters_enabled = adapters_enabled;
  options.stop_ids = tokenizer.special_tokens().end_of_generation;
  std::vector<std::vector<int32_t>> prompts;
  for (const data::PromptAndAnswer& question : questions) {
    prompts.push_back(question.prompt);
    const bool is_new = question.end_of_turn >= 0 &&
                        std::ranges::count(options.stop_ids, question.end_of_turn) == 0;
    if (is_new) options.stop_ids.push_back(question.end_of_turn);
  }
  Progress progress("answering " + std::to_string(prompts.size()) + " rows", 0, "tokens");
  const auto generated = model::generate(model, prompts, options, [&](int64_t, int32_t) {
    progress.advance();
    return true;
  });
  ExactMatch result;
  for (size_t i = 0; i < questions.size(); ++i) {
    Answer answer{questions[i].row, questions[i].source, questions[i].answer,
                  answer_text(tokenizer, options.stop_ids, generated[i])};
    answer.matches = trimmed(answer.generated) == trimmed(answer.expected);
    result.matches += answer.matches;
    result.answers.push_back(std::move(answer));
  }
  result.seconds = watch.seconds();
  return result;
}

}  // namespace qlora::trainer
