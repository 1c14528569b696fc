// Everything that must survive a kill besides the named tensors (adapter, optimizer): what is not
// in here may not influence the run. Saved as state.json of a checkpoint; checked field by field on
// resume.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "data/loader.h"
#include "model/recomputed_layers.h"
#include "optim/lr_schedule.h"
#include "trainer/loss_audit.h"
#include "trainer/loss_scale.h"

namespace qlora::trainer {

// Choices that `auto` made, resolved once: the bits of a run depend on them.
struct ResolvedChoices {
  int threads = 0;              // 0: not recorded
  std::string instruction_set;  // base/instruction_set.h
  std::string device;           // "cpu", "cuda:0"
  std::string compute_dtype;    // of products: "bfloat16"; empty in what older versions wrote
  bool narrow_gates = false;    // model::CausalLm::narrow_gates
  model::RecomputedLayers recompute_layers;
  std::string model_dtype = "";  // of what stays unquantized; empty as compute_dtype is
  bool operator==(const ResolvedChoices&) const = default;
};

struct TrainState {
  int64_t step = 0;     // optimizer steps done
  int64_t horizon = 0;  // total steps the learning-rate schedule was laid out for
  data::LoaderPosition position;
  int64_t tokens = 0, supervised_tokens = 0;  // seen so far
  double best_eval_loss = std::numeric_limits<double>::infinity();
  int64_t best_step = -1;
  int64_t stale_evaluations = 0;  // in a row that gained less than train.early_stopping_min_delta
  bool evaluation_due = false;    // the one after `step`: it was left when a stop was wanted
  LossScale loss_scale;           // grows and shrinks with train.compute_dtype float16 alone
  SeenLosses losses;              // of train.audit; none in what older versions wrote
  optim::Plateau plateau;         // of optim.schedule reduce_on_plateau
  int64_t optimizer_steps = 0;    // Optimizer::num_steps(); set when a checkpoint is made
  std::string base_hash;          // CausalLm::base_hash()
  std::string data_fingerprint;   // of the training examples that were read
  // How many these are if rows behind them were not read, since the run's steps do not need them;
  // 0: all rows were.
  int64_t first_examples = 0;
  ResolvedChoices choices;
};

}  // namespace qlora::trainer
