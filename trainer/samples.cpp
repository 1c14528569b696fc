#include "trainer/samples.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/progress.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "model/generate.h"
#include "trainer/cut_lines.h"

namespace qlora::trainer {

std::vector<Sample> take_samples(model::CausalLm& model, const data::Tokenizer& tokenizer,
                                 const std::vector<int32_t>& stop_ids,
                                 const std::vector<SamplePrompt>& prompts) {
  model::GenerateOptions options;
  options.max_new_tokens = kSampleTokens;
  options.stop_ids = stop_ids;
  std::vector<std::vector<int32_t>> ids;
  for (const SamplePrompt& prompt : prompts) ids.push_back(prompt.ids);
  Progress progress("sample answers", 0, "tokens");
  const auto generated = model::generate(model, ids, options, [&](int64_t, int32_t) {
    progress.advance();
    return true;
  });
  std::vector<Sample> samples;
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> answer = generated[i];
    answer.erase(std::find_first_of(answer.begin(), answer.end(), stop_ids.begin(), stop_ids.end()),
                 answer.end());
    samples.push_back({prompts[i].text, tokenizer.decode(answer, true)});
  }
  return samples;
}

SampleLog::SampleLog(const std::string& path, int64_t last_step)
    : path_(cut_after(path, last_step > 0 ? last_step : -1)) {
  if (!std::filesystem::exists(path_)) return;
  std::istringstream lines(io::read_bytes(path_));
  for (std::string line; std::getline(lines, line);)
    if (const auto json = io::json_or_discarded(line);
        json.is_object() && json.contains("step") && json["step"].is_number_integer())
      steps_.push_back(json["step"].get<int64_t>());
}

bool SampleLog::holds(int64_t step) const { return std::ranges::count(steps_, step) > 0; }

void SampleLog::write(int64_t step, const std::vector<Sample>& samples) {
  nlohmann::ordered_json line = {{"step", step}, {"samples", nlohmann::ordered_json::array()}};
  for (const Sample& sample : samples)
    line["samples"].push_back({{"prompt", sample.prompt}, {"answer", sample.answer}});
  if (!file_) file_.emplace(path_);
  file_->append(io::json_text_in_utf8(line) + '\n');
  steps_.push_back(step);
}

void SampleLog::sync() {
  if (file_) file_->sync();
}

}  // namespace qlora::trainer
