#include "trainer/recompute_choice.h"

namespace qlora::trainer {

int64_t activation_bytes(const model::ModelConfig& c, int64_t tokens, int64_t bytes_an_element) {
  const int64_t attention = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
  const int64_t kept = 2 * c.hidden_size + attention + 3 * c.intermediate_size;
  const int64_t residuals = 2 * c.hidden_size * static_cast<int64_t>(sizeof(float));
  return tokens * c.num_layers * (kept * bytes_an_element + residuals);
}

bool choose_recomputation(const std::string& option, int64_t activation_bytes, int64_t free_bytes) {
  if (option != "auto") return option == "true";
  return activation_bytes > free_bytes / 2;
}

}  // namespace qlora::trainer
