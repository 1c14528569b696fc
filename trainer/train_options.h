// What the recipe's `train` and `output` sections decide. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora {
class Faults;
}

namespace qlora::trainer {

constexpr int64_t kMostSteps = 1'000'000'000;  // of a run

struct TrainOptions {
  std::string objective = "sft";      // sft | dpo | orpo (preference_loss.h)
  double beta = 0.1;                  // of dpo and orpo
  std::string loss_type = "sigmoid";  // of dpo: sigmoid | hinge | ipo
  double label_smoothing = 0.0;  // of dpo's sigmoid: the share of pairs taken to be mislabelled
  int64_t max_steps = 0;         // 0: by epochs
  double epochs = 0.0;           // 0: by max_steps; one of the two must be set
  int64_t micro_batch_size = 1;
  int64_t gradient_accumulation_steps = 1;
  std::string gradient_checkpointing =
      "auto";  // auto | true | false | how many layers are recomputed in the backward pass
  std::string compute_dtype =
      "auto";  // auto | bfloat16 | float16 (loss_scale.h) | float32: of the matrix products
  uint64_t seed = 42;
  std::string device = "auto";          // auto | cpu | cuda | cuda:N
  int threads = 0;                      // 0: all cores
  int64_t eval_every = 0;               // steps; 0: only at the end, if there are evaluation rows
  int64_t early_stopping_patience = 0;  // evaluations without a gain before the run ends; 0: never
  double early_stopping_min_delta = 0.0;  // what counts as a gain in evaluation loss
  int64_t save_every = 0;                 // steps; 0: only at the end
  int64_t save_total_limit = 3;  // rotating checkpoints; the best and the last are kept besides
  int64_t profile_steps = 0;     // how many of the first steps are profiled (step_profile.h)
  int64_t log_every =
      0;  // steps between lines on the terminal; 0: a line at most every half second
  std::vector<std::string>
      sample_prompts;  // answered on the way (samples.h); one that is the name of a file: a file
  int64_t sample_every = 0;     // steps; 0: only before the first step and at the end
  bool audit = true;            // stops a run that trains nothing, or to pieces (run_audit.h)
  int64_t rank_timeout = 1800;  // seconds that the ranks of a run wait for one that is silent
  std::string resume = "auto";  // auto | never | a checkpoint directory
  std::string
      on_extend;  // continue | rescale: what the schedule does when a resumed run has more steps

  // Whether sample_prompts is one text that names a file of prompts: it ends in .txt, or as files
  // of rows do (data/shards.h), .gz and .zst behind it included. A sentence, which has spaces,
  // names one by .txt and .jsonl alone.
  bool samples_from_file() const;

  // Throws ConfigError naming the key.
  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
};

struct OutputOptions {
  std::string dir;         // where the run is written
  bool save_base = false;  // also write the quantized base to <dir>/base
  bool overwrite = false;  // replace a run found in <dir>, but for an unfinished one of this recipe
  // No key of a recipe: --overwrite, the word for this one start, which replaces any run in <dir>.
  bool begins_anew = false;

  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
};

}  // namespace qlora::trainer
