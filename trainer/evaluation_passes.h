// Examples through the model without gradients, several a pass.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "data/examples.h"
#include "data/loader.h"
#include "distributed/group.h"
#include "model/causal_lm.h"

namespace qlora::trainer {

// About; the two examples of a pair stay together.
constexpr int64_t kTokensPerPass = 2048;

struct EvaluationPasses {
  const char* name = "evaluation";  // of the progress that is shown
  bool adapters_enabled = true;
  int64_t tokens_per_pass = kTokensPerPass;
  // What is to be predicted of a batch; by default its own targets.
  std::function<std::vector<int32_t>(const data::MicroBatch&)> targets = {};
  // The ranks among which the passes are dealt; nullptr: this one computes all.
  distributed::Group* group = nullptr;
};

// Calls visit(batch, targets, losses of these as token_losses() gives them) for pass after pass, in
// the examples' order; of several ranks each computes its share and sees all. Throws Stopped
// between two passes, on all ranks, if a stop is wanted.
void for_each_pass(
    model::CausalLm& model, const data::Examples& examples, const EvaluationPasses& passes,
    const std::function<void(const data::MicroBatch&, const std::vector<int32_t>& targets,
                             const std::vector<float>& losses)>& visit);

}  // namespace qlora::trainer
