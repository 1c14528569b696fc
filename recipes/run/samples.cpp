#include "recipes/run/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/embedded_tokens.h"
#include "data/prompt_encoder.h"
#include "data/tokenizers/generation_config.h"
#include "io/file_kind.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::recipes {
namespace {
using Json = nlohmann::ordered_json;

bool is_text(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_string();
}

// A chat row without what the assistant says at its end.
PromptText from_messages(Json messages, const std::string& place) {
  while (!messages.empty() && messages.back().value("role", "") == "assistant")
    messages.erase(messages.size() - 1);
  if (messages.empty() || !is_text(messages.back(), "content"))
    fail<FormatError>("{}: messages must end in a text that can be answered", place);
  std::string text = messages.back()["content"].get<std::string>();
  return {std::move(text), std::move(messages)};
}

PromptText from_json_line(const std::string& line, const std::string& place) {
  const Json json = io::ordered_json_or_discarded(line);
  if (json.is_string()) return {json.get<std::string>(), nullptr};
  if (json.is_object() && is_text(json, "prompt"))
    return {json["prompt"].get<std::string>(), nullptr};
  const bool has_messages = json.is_object() && json.contains("messages") &&
                            json["messages"].is_array() &&
                            std::ranges::all_of(json["messages"], [](const Json& message) {
                              return message.is_object() && is_text(message, "role");
                            });
  if (!has_messages)
    fail<FormatError>("{}: a prompt must be a text, {{\"prompt\": ...}} or {{\"messages\": [...]}}",
                      place);
  return from_messages(json["messages"], place);
}

std::vector<PromptText> read_prompt_file(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    fail<ConfigError>("train.sample_prompts: there is no file {}", path);
  std::vector<PromptText> prompts;
  const std::string bytes = io::read_bytes(path);
  if (const std::string wide = io::wide_text_kind(bytes); !wide.empty())
    fail<FormatError>("train.sample_prompts: {} is {}", path, wide);
  std::istringstream lines(bytes);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (path.ends_with(".txt"))
      prompts.push_back({line, nullptr});
    else
      prompts.push_back(from_json_line(line, fmt::format("{}:{}", path, number)));
  }
  if (prompts.empty()) fail<ConfigError>("train.sample_prompts: {} holds no prompt", path);
  return prompts;
}

std::vector<int32_t> prompt_ids(const PromptText& prompt, const BaseModel& base, bool in_turns) {
  const data::Tokenizer& tokenizer = *base.tokenizer;
  if (base.model->architecture().has_encoder())
    return data::PromptEncoder(tokenizer).encode_with_eos(prompt.text);
  if (!prompt.messages.is_null() && !base.chat_template)
    throw ConfigError(
        "train.sample_prompts: the model has no chat template for messages; give prompts as texts");
  if (!prompt.messages.is_null())
    return data::conversation_prompt(prompt.messages, *base.chat_template, tokenizer);
  if (!in_turns) return data::PromptEncoder(tokenizer).encode(prompt.text);
  return data::conversation_prompt(Json::array({{{"role", "user"}, {"content", prompt.text}}}),
                                   *base.chat_template, tokenizer);
}

}  // namespace

std::vector<PromptText> read_sample_prompts(const trainer::TrainOptions& options) {
  if (options.samples_from_file()) return read_prompt_file(options.sample_prompts.front());
  std::vector<PromptText> prompts;
  for (const std::string& text : options.sample_prompts) prompts.push_back({text, nullptr});
  return prompts;
}

void set_up_samples(const Recipe& recipe, const BaseModel& base, trainer::RunReport& report,
                    trainer::TrainJob& job) {
  const std::vector<PromptText> texts = read_sample_prompts(recipe.train);
  if (texts.empty()) return;
  data::warn_of_generation_keys(*base.tokenizer, base.path);
  const bool in_turns = base.chat_template &&
                        (recipe.data.trains_conversations() || recipe.data.trains_alpaca_prompts());
  std::vector<trainer::SamplePrompt> prompts;
  for (const PromptText& text : texts) {
    prompts.push_back({text.text, prompt_ids(text, base, in_turns)});
    data::require_embedded(prompts.back().ids, *base.tokenizer,
                           base.model->architecture().vocab_size);
  }
  job.sample = [prompts, &report, &tokenizer = *base.tokenizer, &model = *base.model,
                &state = job.state, every = recipe.train.sample_every,
                stop_ids =
                    data::answer_end_ids(*base.tokenizer, base.chat_template.get())](bool at_end) {
    const bool is_due = at_end || state.step == 0 || (every > 0 && state.step % every == 0);
    if (!is_due || report.has_samples(state.step)) return;
    report.samples(state.step, trainer::take_samples(model, tokenizer, stop_ids, prompts));
  };
}

}  // namespace qlora::recipes
