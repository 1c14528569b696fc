// The options by which commands are told which model to use: RUN_DIR | --model M [--adapter A], or
// all but the adapter.
#pragma once

#include <optional>
#include <string>

#include "cli/command.h"
#include "recipes/models/trained_model.h"

namespace qlora::cli {

void add_base_choice(Command command, recipes::ModelChoice& choice);
void add_model_choice(Command command, recipes::ModelChoice& choice);

// Makes the choice ask for a chat template before weights are read: without one a ConfigError says
// so, and `instead` what to do. A model with an encoder knows no conversations, which `of_encoder`
// is said of; empty: it will do.
void need_chat_template(recipes::ModelChoice& choice, const std::string& instead,
                        const std::string& of_encoder);

// Warns where the rows of the model's run put their prompts otherwise than one is put now, which is
// `raw`, or comes in a conversation.
void tell_trained_prompts(const recipes::TrainedModel& trained,
                          const std::optional<std::string>& raw, bool has_system_message);

}  // namespace qlora::cli
