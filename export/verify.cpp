#include "export/verify.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "io/json_text.h"

namespace qlora::exporting {
namespace {

constexpr size_t kRows = 4, kTokens = 96;
constexpr int64_t kPiece = 128;  // tokens whose logits are compared at once

// What the head reads of each token.
at::Tensor hidden_of(model::CausalLm& model, const std::vector<int32_t>& tokens,
                     const std::vector<int32_t>& encoded) {
  model::ForwardInput input;
  input.tokens = tokens;
  for (size_t i = 0; i < tokens.size(); ++i) input.positions.push_back(static_cast<int32_t>(i));
  input.cu_seqlens = {0, static_cast<int32_t>(tokens.size())};
  if (model.architecture().has_encoder())
    input.source = {encoded, {0, static_cast<int32_t>(encoded.size())}};
  return model.hidden(input);
}

// Calls visit(first token, logits of it and those behind it on the CPU) for piece after piece.
void for_each_piece(model::CausalLm& model, const std::vector<int32_t>& tokens,
                    const std::vector<int32_t>& encoded,
                    const std::function<void(int64_t begin, const at::Tensor& logits)>& visit) {
  at::NoGradGuard no_grad;
  const at::Tensor hidden = hidden_of(model, tokens, encoded);
  for (int64_t begin = 0; begin < hidden.size(0); begin += kPiece) {
    const int64_t count = std::min(kPiece, hidden.size(0) - begin);
    visit(begin, model.logits(hidden.narrow(0, begin, count)).cpu());
  }
}

// Of the model that others are compared with.
void require_numbers(const at::Tensor& logits) {
  if (at::isfinite(logits).all().item<bool>()) return;
  throw DivergenceError(
      "the model's logits are not finite before it is exported: the adapter or the base holds "
      "values that are not finite or too large to compute with, as after a training that diverged");
}

// Minus the log-probabilities [tokens of a piece, vocabulary] of the row's tokens that follow,
// summed.
double next_token_loss(const at::Tensor& log_probabilities, int64_t begin,
                       const std::vector<int32_t>& row) {
  double sum = 0;
  for (int64_t i = 0; i < log_probabilities.size(0); ++i) {
    const auto next = static_cast<size_t>(begin + i + 1);
    if (next < row.size()) sum -= log_probabilities[i][row[next]].item<double>();
  }
  return sum;
}

// Sums over tokens, which become means in the end.
struct Sums {
  Agreement total;
  int64_t same = 0;

  // Logits [tokens, vocabulary] of a row's piece that begins at token `begin`.
  void add(const at::Tensor& trained, const at::Tensor& found, int64_t begin,
           const std::vector<int32_t>& row) {
    check(at::isfinite(found).all().item<bool>(), "the exported model's logits are not finite");
    const at::Tensor log_p = at::log_softmax(trained, -1), log_q = at::log_softmax(found, -1);
    const at::Tensor kl = (log_p.exp() * (log_p - log_q)).sum(-1);
    same += trained.argmax(-1).eq(found.argmax(-1)).sum().item<int64_t>();
    total.kl_mean += kl.sum().item<double>();
    total.kl_max = std::max(total.kl_max, kl.max().item<double>());
    total.largest_difference =
        std::max(total.largest_difference, (trained - found).abs().max().item<double>());
    total.loss += next_token_loss(log_q, begin, row);
    total.trained_loss += next_token_loss(log_p, begin, row);
    total.tokens += trained.size(0);
  }

  Agreement means() const {
    Agreement means = total;
    means.top1 = static_cast<double>(same) / static_cast<double>(total.tokens);
    means.kl_mean /= static_cast<double>(total.tokens);
    const auto predicted = static_cast<double>(std::max<int64_t>(total.predicted_tokens, 1));
    means.loss /= predicted;
    means.trained_loss /= predicted;
    return means;
  }
};

}  // namespace

std::string Agreement::to_text() const {
  return fmt::format(
      "top-1 agreement {:.2f} % of {} tokens, KL {:.2e} nats a token (largest {:.2e}), largest "
      "logit difference {:.3g}",
      100 * top1, tokens, kl_mean, kl_max, largest_difference);
}

std::string Agreement::to_json() const {
  const nlohmann::ordered_json json = {{"tokens", tokens},
                                       {"top1_agreement", top1},
                                       {"kl_mean", kl_mean},
                                       {"kl_max", kl_max},
                                       {"largest_logit_difference", largest_difference},
                                       {"loss", loss},
                                       {"trained_loss", trained_loss}};
  return io::json_text(json, 2) + "\n";
}

Reference::Reference(model::CausalLm& trained, std::vector<std::vector<int32_t>> rows)
    : rows_(std::move(rows)) {
  std::erase_if(rows_, [](const auto& row) { return row.empty(); });
  if (rows_.size() > kRows) rows_.resize(kRows);
  for (std::vector<int32_t>& row : rows_)
    if (row.size() > kTokens) row.resize(kTokens);
  encoded_ = rows_;
  run(trained);
}

Reference::Reference(model::CausalLm& trained, const std::vector<data::Example>& examples,
                     int64_t most_bytes) {
  const int64_t bytes_of_token = trained.architecture().vocab_size * int64_t{sizeof(float)};
  auto left = static_cast<size_t>(std::max<int64_t>(most_bytes / bytes_of_token, 1));
  for (const data::Example& example : examples) {
    if (example.tokens.empty()) continue;
    if (left == 0) break;
    rows_.push_back(example.tokens);
    rows_.back().resize(std::min(left, example.tokens.size()));
    encoded_.push_back(example.encoded.empty() ? rows_.back() : example.encoded);
    left -= rows_.back().size();
  }
  run(trained);
}

void Reference::run(model::CausalLm& trained) {
  check(!rows_.empty(), "an export is compared on rows; there are none");
  Progress progress("answers of the model, to compare with", static_cast<int64_t>(rows_.size()),
                    "rows");
  for (size_t i = 0; i < rows_.size(); ++i) {
    std::vector<at::Tensor> pieces;
    for_each_piece(trained, rows_[i], encoded_[i], [&](int64_t, const at::Tensor& logits) {
      require_numbers(logits);
      pieces.push_back(logits);
    });
    logits_.push_back(at::cat(pieces));
    progress.advance();
  }
}

Agreement Reference::compare(model::CausalLm& exported) const {
  Sums sums;
  Progress progress("comparing with the model's answers", static_cast<int64_t>(rows_.size()),
                    "rows");
  for (size_t i = 0; i < rows_.size(); ++i) {
    for_each_piece(exported, rows_[i], encoded_[i], [&](int64_t begin, const at::Tensor& logits) {
      sums.add(logits_[i].narrow(0, begin, logits.size(0)), logits, begin, rows_[i]);
    });
    sums.total.predicted_tokens += logits_[i].size(0) - 1;
    progress.advance();
  }
  return sums.means();
}

}  // namespace qlora::exporting
