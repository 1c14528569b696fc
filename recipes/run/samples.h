// train.sample_prompts: what the model as it is answers to a few prompts, on the way of a run.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "recipes/models/base_model.h"
#include "recipes/recipe.h"
#include "trainer/run_report.h"
#include "trainer/samples.h"
#include "trainer/train_loop.h"

namespace qlora::recipes {

// A prompt as the recipe or its file gives it.
struct PromptText {
  std::string text;                 // as it is shown: of messages the last one's
  nlohmann::ordered_json messages;  // as in a chat row, without a last answer; null: the text alone
};

// Those of the recipe, or of the file it names: the lines of a .txt file, or the rows of a file of
// rows (data/row_files/row_file.h), each a text, or with a column or field "prompt" or "messages".
// ConfigError if that is not there, is of another kind or holds none, FormatError naming file and
// line for what is no prompt.
std::vector<PromptText> read_sample_prompts(const trainer::TrainOptions& options);

// Their tokens, for before the run begins: what is wrong with one costs no earlier run. Texts pass
// through the chat template where the recipe trains conversations. ConfigError if the model has no
// template for messages or a prompt leaves no room for an answer, FormatError for a token it has no
// embedding for.
std::vector<trainer::SamplePrompt> make_sample_prompts(const Recipe& recipe, const BaseModel& base);

// Makes the job take samples of these prompts, if there are any, before its first step, every
// train.sample_every steps and at the end, where samples.jsonl holds none of that step. All
// arguments but the prompts outlive the job.
void set_up_samples(const Recipe& recipe, const BaseModel& base,
                    const std::vector<trainer::SamplePrompt>& prompts, trainer::RunReport& report,
                    trainer::TrainJob& job);

}  // namespace qlora::recipes
