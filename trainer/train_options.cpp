#include "trainer/train_options.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <initializer_list>

#include "base/faults.h"
#include "data/row_files/row_file.h"
#include "data/shards.h"

namespace qlora::trainer {
namespace {

constexpr int kMostThreads = 1024;  // of one process: the cores of the largest machines
constexpr int64_t kMostMicroBatches = 1 << 20;
constexpr int64_t kMostEpochs = 1'000'000;

void need_at_least(Faults& faults, const char* key, int64_t value, int64_t least) {
  if (value < least) faults.add("{} must be at least {}, found {}", key, least, value);
}

void need_at_most(Faults& faults, const char* key, int64_t value, int64_t most) {
  if (value > most) faults.add("{} must be at most {}, found {}", key, most, value);
}

void need_one_of(Faults& faults, const char* key, const std::string& value,
                 std::initializer_list<const char*> known) {
  std::string list;
  for (const char* word : known) {
    if (value == word) return;
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  faults.add("{} must be one of {}, found '{}'", key, list, value);
}

bool is_digit(unsigned char c) { return std::isdigit(c); }

bool is_device(const std::string& name) {
  if (name == "auto" || name == "cpu" || name == "cuda") return true;
  const std::string number = name.starts_with("cuda:") ? name.substr(5) : "";
  return !number.empty() && number.size() < 4 && std::ranges::all_of(number, is_digit);
}

// Those of the objective, and that no key is set which it does not obey.
void validate_objective(const TrainOptions& options, Faults& faults) {
  need_one_of(faults, "train.objective", options.objective, {"sft", "dpo", "orpo"});
  need_one_of(faults, "train.loss_type", options.loss_type, {"sigmoid", "hinge", "ipo"});
  if (!(options.beta > 0 && std::isfinite(options.beta)))
    faults.add("train.beta must be above 0, found {}", options.beta);
  if (!(options.label_smoothing >= 0 && options.label_smoothing < 0.5))
    faults.add("train.label_smoothing must be at least 0 and below 0.5, found {}",
               options.label_smoothing);
  const TrainOptions defaults;
  const bool dpo = options.objective == "dpo";
  if (options.objective == "sft" && options.beta != defaults.beta)
    faults.add("train.beta belongs to train.objective dpo and orpo, found sft");
  if (!dpo && options.loss_type != defaults.loss_type)
    faults.add("train.loss_type belongs to train.objective dpo, found {}", options.objective);
  if (options.label_smoothing > 0 && !(dpo && options.loss_type == "sigmoid"))
    faults.add(
        "train.label_smoothing belongs to train.objective dpo with train.loss_type sigmoid, found "
        "{} with {}",
        options.objective, options.loss_type);
}

// Of train.gradient_checkpointing; how many layers there are, the model says.
bool is_word_or_count(const std::string& value) {
  if (value == "auto" || value == "true" || value == "false") return true;
  return !value.empty() && std::ranges::all_of(value, is_digit);
}

void validate_samples(const TrainOptions& options, Faults& faults) {
  need_at_least(faults, "train.sample_every", options.sample_every, 0);
  if (options.sample_every > 0 && options.sample_prompts.empty())
    faults.add(
        "train.sample_every needs train.sample_prompts: the prompts that are to be answered");
  for (const std::string& prompt : options.sample_prompts)
    if (prompt.find_first_not_of(" \t\r\n") == std::string::npos)
      faults.add("train.sample_prompts must not hold an empty text; leave it out");
}

}  // namespace

bool TrainOptions::samples_from_file() const {
  if (sample_prompts.size() != 1) return false;
  const std::string& only = sample_prompts.front();
  if (only.ends_with(".txt") || only.ends_with(".jsonl")) return true;
  const bool is_sentence = only.find_first_of(" \t\r\n") != std::string::npos;
  return !is_sentence && (data::rows_extension(only) == ".txt" || data::is_named_as_rows(only));
}

void TrainOptions::validate() const { require_no_faults(*this); }

void TrainOptions::find_faults(Faults& faults) const {
  validate_objective(*this, faults);
  need_at_least(faults, "train.max_steps", max_steps, 0);
  need_at_most(faults, "train.max_steps", max_steps, kMostSteps);
  if (!(epochs >= 0 && epochs <= static_cast<double>(kMostEpochs)))
    faults.add("train.epochs must be between 0 and {}, found {}", kMostEpochs, epochs);
  if (max_steps == 0 && epochs == 0)
    faults.add("train.max_steps or train.epochs must say how long the run is");
  if (max_steps > 0 && epochs > 0)
    faults.add("train.max_steps and train.epochs exclude each other; leave one out");
  need_at_least(faults, "train.micro_batch_size", micro_batch_size, 1);
  need_at_least(faults, "train.gradient_accumulation_steps", gradient_accumulation_steps, 1);
  need_at_most(faults, "train.gradient_accumulation_steps", gradient_accumulation_steps,
               kMostMicroBatches);
  if (!is_word_or_count(gradient_checkpointing))
    faults.add(
        "train.gradient_checkpointing must be auto, true, false or a number of layers, found '{}'",
        gradient_checkpointing);
  need_one_of(faults, "train.compute_dtype", compute_dtype,
              {"auto", "bfloat16", "float16", "float32"});
  if (!is_device(device))
    faults.add("train.device must be auto, cpu, cuda or cuda:N, found '{}'", device);
  need_at_least(faults, "train.threads", threads, 0);
  need_at_most(faults, "train.threads", threads, kMostThreads);
  need_at_least(faults, "train.profile_steps", profile_steps, 0);
  need_at_least(faults, "train.eval_every", eval_every, 0);
  need_at_least(faults, "train.early_stopping_patience", early_stopping_patience, 0);
  if (!(early_stopping_min_delta >= 0 && std::isfinite(early_stopping_min_delta)))
    faults.add("train.early_stopping_min_delta must be 0 or more, found {}",
               early_stopping_min_delta);
  if (early_stopping_patience > 0 && eval_every == 0)
    faults.add("train.early_stopping_patience needs train.eval_every: it counts evaluations");
  need_at_least(faults, "train.save_every", save_every, 0);
  need_at_least(faults, "train.rank_timeout", rank_timeout, 1);
  need_at_least(faults, "train.log_every", log_every, 0);
  need_at_least(faults, "train.save_total_limit", save_total_limit, 0);
  validate_samples(*this, faults);
  if (std::string word = resume; resume != "auto" && resume != "never") {
    std::ranges::transform(word, word.begin(), [](unsigned char c) { return std::tolower(c); });
    if (word == "auto" || word == "never")
      faults.add(
          "train.resume must be auto, never or a checkpoint's path, found '{0}'; write {1} (or "
          "./{0} for a directory of that name)",
          resume, word);
  }
  if (resume.empty()) faults.add("train.resume must be auto, never or a checkpoint's path");
  if (!on_extend.empty())
    need_one_of(faults, "train.on_extend", on_extend, {"continue", "rescale"});
}

void OutputOptions::validate() const { require_no_faults(*this); }

void OutputOptions::find_faults(Faults& faults) const {
  if (dir.empty()) faults.add("output.dir must name the directory of the run");
}

}  // namespace qlora::trainer
