#include "export/verify.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "io/json_text.h"

namespace qlora::exporting {
namespace {

constexpr size_t kRows = 4, kTokens = 96;

at::Tensor logits_of(model::CausalLm& model, const std::vector<int32_t>& tokens) {
  at::NoGradGuard no_grad;
  model::ForwardInput input;
  input.tokens = tokens;
  for (size_t i = 0; i < tokens.size(); ++i) input.positions.push_back(static_cast<int32_t>(i));
  input.cu_seqlens = {0, static_cast<int32_t>(tokens.size())};
  if (model.architecture().has_encoder()) input.source = {tokens, input.cu_seqlens};
  return model.logits(model.hidden(input)).cpu();
}

// Minus the log-probabilities of the tokens that follow, summed.
double next_token_loss(const at::Tensor& log_probabilities, const std::vector<int32_t>& tokens) {
  double sum = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i)
    sum -= log_probabilities[static_cast<int64_t>(i)][tokens[i + 1]].item<double>();
  return sum;
}

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
  check(!rows_.empty(), "an export is compared on rows; there are none");
  if (rows_.size() > kRows) rows_.resize(kRows);
  Progress progress("answers of the model, to compare with", static_cast<int64_t>(rows_.size()),
                    "rows");
  for (std::vector<int32_t>& row : rows_) {
    if (row.size() > kTokens) row.resize(kTokens);
    logits_.push_back(logits_of(trained, row));
    progress.advance();
  }
}

Agreement Reference::compare(model::CausalLm& exported) const {
  Agreement total;
  int64_t same = 0, next_tokens = 0;
  double kl_sum = 0;
  Progress progress("comparing what was written", static_cast<int64_t>(rows_.size()), "rows");
  for (size_t i = 0; i < rows_.size(); ++i) {
    const at::Tensor& trained = logits_[i];
    const at::Tensor found = logits_of(exported, rows_[i]);
    check(at::isfinite(found).all().item<bool>(), "the exported model's logits are not finite");
    const at::Tensor log_p = at::log_softmax(trained, -1), log_q = at::log_softmax(found, -1);
    const at::Tensor kl = (log_p.exp() * (log_p - log_q)).sum(-1);
    same += trained.argmax(-1).eq(found.argmax(-1)).sum().item<int64_t>();
    kl_sum += kl.sum().item<double>();
    total.kl_max = std::max(total.kl_max, kl.max().item<double>());
    total.largest_difference =
        std::max(total.largest_difference, (trained - found).abs().max().item<double>());
    total.tokens += trained.size(0);
    next_tokens += trained.size(0) - 1;
    total.loss += next_token_loss(log_q, rows_[i]);
    total.trained_loss += next_token_loss(log_p, rows_[i]);
    progress.advance();
  }
  total.top1 = static_cast<double>(same) / static_cast<double>(total.tokens);
  total.kl_mean = kl_sum / static_cast<double>(total.tokens);
  const auto predicted = static_cast<double>(std::max<int64_t>(next_tokens, 1));
  total.loss /= predicted;
  total.trained_loss /= predicted;
  return total;
}

}  // namespace qlora::exporting
