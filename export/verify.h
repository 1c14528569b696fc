// Is an export the model that was trained? Both run over the same rows; their next-token
// distributions are compared. An encoder is given each row, too, unless the row has a text of its
// own for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/example.h"
#include "model/causal_lm.h"

namespace qlora::exporting {

struct Agreement {
  int64_t tokens = 0, predicted_tokens = 0;  // the latter: of the losses
  double top1 = 0;     // share of positions where both find the same token most likely
  double kl_mean = 0;  // KL(trained || exported), nats a token
  double kl_max = 0;
  double largest_difference = 0;      // of two logits
  double loss = 0, trained_loss = 0;  // of the rows' next tokens, nats a token

  std::string to_text() const;
  std::string to_json() const;
};

// What the trained model says to some rows, kept as fp32 logits on the CPU.
class Reference {
 public:
  // Rows are cut to 96 tokens, and to 4 rows. DivergenceError if the logits are not finite.
  Reference(model::CausalLm& trained, std::vector<std::vector<int32_t>> rows);
  // All tokens of the examples, trained or not, up to as many as have `most_bytes` of logits.
  Reference(model::CausalLm& trained, const std::vector<data::Example>& examples,
            int64_t most_bytes);
  // Error if the exported model's logits are not finite.
  Agreement compare(model::CausalLm& exported) const;
  // As they were compared.
  const std::vector<std::vector<int32_t>>& rows() const { return rows_; }

 private:
  void run(model::CausalLm& trained);

  std::vector<std::vector<int32_t>> rows_;
  std::vector<std::vector<int32_t>> encoded_;  // what an encoder reads of each
  std::vector<at::Tensor> logits_;             // of each, [tokens, vocabulary]
};

}  // namespace qlora::exporting
