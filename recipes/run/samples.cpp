#include "recipes/run/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/embedded_tokens.h"
#include "data/prompt_encoder.h"
#include "data/row_files/row_file.h"
#include "data/tokenizers/generation_config.h"
#include "io/byte_reader.h"
#include "io/file_kind.h"
#include "model/position_limit.h"

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

PromptText from_row(const Json& json, const std::string& place) {
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

constexpr size_t kHead = 4096;

void skip_byte_order_mark(io::ByteReader& bytes) {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  if (bytes.peek(kMark.size()) == kMark) bytes.skip(kMark.size());
}

std::vector<PromptText> read_lines(const std::string& path) {
  io::ByteReader bytes(path);
  if (const std::string wide = io::wide_text_kind(bytes.peek(kHead)); !wide.empty())
    fail<FormatError>("train.sample_prompts: {} is {}", path, wide);
  skip_byte_order_mark(bytes);
  std::vector<PromptText> prompts;
  for (std::string line; bytes.line(line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) prompts.push_back({line, nullptr});
  }
  return prompts;
}

// Rows of data are objects, prompts may be texts as well.
std::unique_ptr<data::RowFile> open_prompt_rows(const std::string& path) {
  io::ByteReader bytes(path);
  skip_byte_order_mark(bytes);
  const std::string_view head = bytes.peek(kHead);
  const size_t first = head.find_first_not_of(" \t\r\n");
  const std::string extension = data::rows_extension(path);
  const bool is_table = extension == ".csv" || extension == ".tsv";
  if (!is_table && first != std::string_view::npos && head[first] == '"')
    return data::open_json_rows(std::move(bytes));
  data::DatasetOptions dataset;
  dataset.path = path;
  dataset.format = "chat";  // whose messages a cell of a table holds as JSON
  return data::open_row_file(path, dataset);
}

std::vector<PromptText> read_rows(const std::string& path) {
  const std::unique_ptr<data::RowFile> file = open_prompt_rows(path);
  std::vector<PromptText> prompts;
  for (data::SourceRow row; file->next(row);) prompts.push_back(from_row(row.value, row.location));
  return prompts;
}

constexpr const char* kKinds =
    ".txt (a prompt a line), .jsonl, .json, .ndjson, .csv, .tsv (each also with .gz or .zst behind "
    "it), .parquet, .arrow or .feather";

std::vector<PromptText> read_prompt_file(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    fail<ConfigError>(
        "train.sample_prompts: there is no file {}; a single entry that ends in {} is the name of "
        "a file, and no prompt",
        path, kKinds);
  std::vector<PromptText> prompts =
      data::rows_extension(path) == ".txt" ? read_lines(path) : read_rows(path);
  if (prompts.empty()) fail<ConfigError>("train.sample_prompts: {} holds no prompt", path);
  return prompts;
}

// A file that is given as a prompt. One that lies beside the recipe has an absolute path here
// (yaml/recipe_yaml.h); what lies where the program was started has no part in it.
void refuse_other_file(const std::vector<std::string>& prompts) {
  std::error_code is_no_path;  // a text may be too long for one
  if (prompts.size() == 1 && prompts.front().starts_with('/') &&
      std::filesystem::is_regular_file(prompts.front(), is_no_path))
    fail<ConfigError>(
        "train.sample_prompts: {} is a file, whose prompts are read if its name ends in {}; rename "
        "it, or give the prompts themselves",
        prompts.front(), kKinds);
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

void require_room(const trainer::SamplePrompt& prompt, size_t number,
                  const model::Architecture& architecture) {
  const model::PositionLimit limit = model::position_limit(architecture);
  if (std::ssize(prompt.ids) >= limit.tokens)
    fail<ConfigError>(
        "train.sample_prompts: prompt {} has {} tokens, which leaves no room for an answer within "
        "the model's {} positions ({})",
        number, prompt.ids.size(), limit.tokens, limit.said_by);
}

}  // namespace

std::vector<PromptText> read_sample_prompts(const trainer::TrainOptions& options) {
  if (options.samples_from_file()) return read_prompt_file(options.sample_prompts.front());
  refuse_other_file(options.sample_prompts);
  std::vector<PromptText> prompts;
  for (const std::string& text : options.sample_prompts) prompts.push_back({text, nullptr});
  return prompts;
}

std::vector<trainer::SamplePrompt> make_sample_prompts(const Recipe& recipe,
                                                       const BaseModel& base) {
  const std::vector<PromptText> texts = read_sample_prompts(recipe.train);
  if (texts.empty()) return {};
  data::warn_of_generation_keys(*base.tokenizer, base.path);
  const bool in_turns = base.chat_template &&
                        (recipe.data.trains_conversations() || recipe.data.trains_alpaca_prompts());
  std::vector<trainer::SamplePrompt> prompts;
  for (const PromptText& text : texts) {
    prompts.push_back({text.text, prompt_ids(text, base, in_turns)});
    data::require_embedded(prompts.back().ids, *base.tokenizer,
                           base.model->architecture().vocab_size);
    require_room(prompts.back(), prompts.size(), base.model->architecture());
  }
  return prompts;
}

void set_up_samples(const Recipe& recipe, const BaseModel& base,
                    const std::vector<trainer::SamplePrompt>& prompts, trainer::RunReport& report,
                    trainer::TrainJob& job) {
  if (prompts.empty()) return;
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
