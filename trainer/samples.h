// Answers of the model as it is, on the way of a run: greedy, so that two steps differ by what was
// learnt alone, and without a trace in the run: no random number is drawn and no state is changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "io/append_file.h"
#include "model/causal_lm.h"

namespace qlora::trainer {

struct SamplePrompt {
  std::string text;  // as it is shown
  std::vector<int32_t>
      ids;  // what generation starts from, or of a model with an encoder its source
};

struct Sample {
  std::string prompt, answer;
};

// The longest answer, in tokens.
constexpr int64_t kSampleTokens = 128;

// The most likely tokens behind each prompt, up to the first of `stop_ids`, which is left out.
// ConfigError if a prompt leaves no room within the model's positions. Throws Stopped between two
// tokens if a stop is wanted.
std::vector<Sample> take_samples(model::CausalLm& model, const data::Tokenizer& tokenizer,
                                 const std::vector<int32_t>& stop_ids,
                                 const std::vector<SamplePrompt>& prompts);

// samples.jsonl: {"step", "samples": [{"prompt", "answer"}, ...]} a line. Made with its first line.
class SampleLog {
 public:
  // Keeps the lines of steps up to `last_step`; of a run that begins (0) none, which samples again.
  SampleLog(const std::string& path, int64_t last_step);
  bool holds(int64_t step) const;
  void write(int64_t step, const std::vector<Sample>& samples);
  void sync();

 private:
  std::string path_;
  std::vector<int64_t> steps_;  // that the file holds
  std::optional<io::AppendFile> file_;
};

}  // namespace qlora::trainer
