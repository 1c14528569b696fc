// How the rows of a training put their prompts: what whoever speaks with the model must do alike,
// and cannot see in its files.
#pragma once

#include <string>

#include "data/example.h"

namespace qlora::data {

struct TrainedPrompts {
  // No row is written with the chat template: each is a prompt as it is and its completion.
  bool are_raw = false;
  std::string separator;  // behind a raw prompt, where all data sets have the same
  // The message that data sets give conversations without one (DatasetOptions::system), where all
  // of them give the same; empty: none.
  std::string system;
};

TrainedPrompts trained_prompts(const DataOptions& options);

}  // namespace qlora::data
