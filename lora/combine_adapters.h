// Several adapters of one base as one, with weights: what PEFT's add_weighted_adapter computes,
// module by module. With w_i the weight of adapter i, s_i its scaling in the module,
// c_i = |w_i s_i| and e_i = -1 for w_i s_i < 0, else 1:
//
//   cat               A = [w_1 s_1 A_1; w_2 s_2 A_2; ...]   B = [B_1, B_2, ...]
//   linear            A = Σ e_i √c_i A_i                    B = Σ √c_i B_i
//   magnitude_prune   linear, of P(A_i) and P(B_i)
//   ties              A = mean of e_i √c_i P(A_i), number by number, over the i where P(A_i) has
//                     the elected sign; B the same without e_i      (Yadav et al. 2023)
//   dare_linear       linear, of D(A_i) and D(B_i)                  (Yu et al. 2023)
//   dare_ties         ties with D in place of P
//
// P keeps the share `density` of a tensor's numbers that is largest in magnitude and zeroes the
// rest. D keeps each number with chance `density` and divides it by that. The elected sign is that
// of the sum of the pruned tensors, or of the sum of their signs; zero counts as positive.
//
// cat alone gives the weighted sum of the products s_i B_i A_i exactly, at the sum of the ranks.
// The others combine the factors, so that B A has cross terms.
//
// The result's alpha is its rank: scaling 1. (PEFT keeps use_rslora of the first adapter, and then
// multiplies the result by the root of the rank.) D draws from base/seed.h by the seed, the
// adapter's place and the module's name: PEFT's own draw comes from torch's generator and cannot
// be repeated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lora/initial_factors.h"
#include "lora/linear_group.h"
#include "lora/lora_options.h"

namespace qlora::lora {

struct CombineOptions {
  std::string method = "linear";
  std::vector<double> weights;          // one an adapter, of either sign
  std::optional<double> density;        // in (0, 1]; of the methods that prune, which need it
  std::string majority_sign = "total";  // elected by: total | frequency
  uint64_t seed = 0;                    // of DARE's draw

  // ConfigError naming the option of `qlora export`.
  void validate(size_t num_adapters) const;
};

// A LoRA adapter as it was trained.
struct PlainAdapter {
  std::string name;  // for messages
  LoraOptions options;
  GivenFactors factors;  // by module
};

struct CombinedAdapter {
  LoraOptions options;  // that give each module the rank of its factors, and scaling 1
  GivenFactors factors;
};

// Reads an adapter by way of the slots of `groups`, which are empty afterwards, also when it
// throws: its tensors fit the model. ConfigError for what cannot be combined: magnitudes (DoRA) and
// trained biases. Errors of read_adapter_options and read_adapter_tensors.
PlainAdapter read_plain_adapter(const std::string& directory,
                                const std::vector<LinearGroup*>& groups);

// ConfigError naming adapter and module if they do not adapt the same modules, or, for all but cat,
// with other ranks.
CombinedAdapter combine_adapters(const std::vector<PlainAdapter>& adapters,
                                 const CombineOptions& options);

}  // namespace qlora::lora
