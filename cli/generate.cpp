#include "cli/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/utf8.h"
#include "cli/answer_options.h"
#include "cli/answer_stream.h"
#include "cli/model_choice.h"
#include "data/chat_renderer.h"
#include "data/embedded_tokens.h"
#include "data/messages_file.h"
#include "data/prompt_encoder.h"
#include "data/tokenizers/generation_config.h"
#include "model/generate.h"
#include "model/position_limit.h"
#include "recipes/models/original_base.h"

namespace {

using qlora::ConfigError;
using qlora::data::Json;
using qlora::recipes::TrainedModel;

struct GenerateArguments {
  qlora::recipes::ModelChoice choice;
  std::string prompt, messages, system;
  bool raw = false, base_only = false;
  qlora::model::GenerateOptions options;
};

Json messages_of(const GenerateArguments& arguments) {
  if (!arguments.messages.empty()) return qlora::data::read_messages(arguments.messages);
  Json messages = Json::array();
  if (!arguments.system.empty())
    messages.push_back({{"role", "system"}, {"content", arguments.system}});
  messages.push_back({{"role", "user"}, {"content", arguments.prompt}});
  return messages;
}

std::vector<int32_t> encoded_prompt(const TrainedModel& trained, const Json& messages,
                                    const GenerateArguments& arguments) {
  const auto& tokenizer = *trained.base.tokenizer;
  if (trained.base.model->architecture().has_encoder())
    return qlora::data::PromptEncoder(tokenizer).encode_with_eos(arguments.prompt);
  if (arguments.raw) {
    return qlora::data::PromptEncoder(tokenizer).encode(arguments.prompt);
  }
  return qlora::data::conversation_prompt(messages, *trained.base.chat_template, tokenizer);
}

std::vector<int32_t> prompt_ids(const TrainedModel& trained, const Json& messages,
                                const GenerateArguments& arguments) {
  std::vector<int32_t> ids = encoded_prompt(trained, messages, arguments);
  qlora::data::require_embedded(ids, *trained.base.tokenizer,
                                trained.base.model->architecture().vocab_size);
  return ids;
}

// An answer that ends only because the model has no more positions is not all of it. An encoder's
// prompt takes none of them.
void warn_of_full_context(const TrainedModel& trained, int64_t prompt,
                          const std::vector<int32_t>& answer,
                          const qlora::model::GenerateOptions& options) {
  const auto& architecture = trained.base.model->architecture();
  const auto length = static_cast<int64_t>(answer.size());
  const int64_t begin = architecture.has_encoder() ? 1 : prompt;
  const bool has_ended = length == options.max_new_tokens ||
                         (length > 0 && std::ranges::count(options.stop_ids, answer.back()) > 0);
  const auto limit = qlora::model::position_limit(architecture);
  if (has_ended || begin + length < limit.tokens) return;
  qlora::log::write_warning(fmt::format(
      "the answer is cut off after {} tokens: with the prompt it fills the {} positions that the "
      "model has learnt ({})",
      length, limit.tokens, limit.said_by));
}

void run(GenerateArguments arguments) {
  if (arguments.prompt.empty() == arguments.messages.empty()) {
    throw ConfigError("give either --prompt TEXT or --messages FILE");
  }
  qlora::check_utf8(arguments.prompt, "--prompt");
  qlora::check_utf8(arguments.system, "--system");
  if (arguments.raw && arguments.prompt.empty()) throw ConfigError("--raw goes with --prompt");
  if (!arguments.system.empty() && (arguments.raw || arguments.prompt.empty()))
    throw ConfigError(
        "--system goes with --prompt and a chat template; write the message into the file of "
        "--messages, or into the raw prompt");
  const Json messages = messages_of(arguments);
  arguments.choice.few_rows = true;
  if (!arguments.raw)
    qlora::cli::need_chat_template(arguments.choice, "give the text as --prompt TEXT --raw",
                                   arguments.prompt.empty()   ? "give --prompt TEXT"
                                   : arguments.system.empty() ? ""
                                                              : "leave --system out");
  const TrainedModel trained = qlora::recipes::open_model(arguments.choice);
  arguments.options.stop_ids = qlora::data::answer_end_ids(
      *trained.base.tokenizer, arguments.raw ? nullptr : trained.base.chat_template.get());
  qlora::data::warn_of_generation_keys(*trained.base.tokenizer, trained.base.path);
  arguments.options.adapters_enabled = !arguments.base_only;
  if (arguments.base_only || !trained.adapters)
    if (const auto said = qlora::recipes::changed_base_sentence(arguments.choice, trained);
        !said.empty())
      qlora::log::write_warning(said);
  qlora::cli::AnswerStream stream(*trained.base.tokenizer);
  const std::vector<int32_t> prompt = prompt_ids(trained, messages, arguments);  // checks them
  qlora::cli::tell_trained_prompts(trained,
                                   arguments.raw ? std::optional(arguments.prompt) : std::nullopt,
                                   messages.front().value("role", "") == "system");
  const auto answers = qlora::model::generate(*trained.base.model, {prompt}, arguments.options,
                                              [&](int64_t, int32_t id) {
                                                stream.add(id);
                                                return true;
                                              });
  stream.finish();
  warn_of_full_context(trained, std::ssize(prompt), answers[0], arguments.options);
}

}  // namespace

void add_generate_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<GenerateArguments>();
  qlora::cli::Command command = app.add_subcommand("generate", "One answer to a prompt");
  qlora::cli::add_model_choice(command, arguments->choice);
  command.add_option("--prompt", arguments->prompt, "The user's message");
  command.add_option("--system", arguments->system, "System message in front of --prompt");
  command.add_option("--messages", arguments->messages,
                     "JSON file: [{\"role\": \"user\", \"content\": ...}, ...]");
  command.add_flag("--raw", arguments->raw, "Continue the prompt as it is, without a template");
  command.add_flag("--base-only", arguments->base_only, "Turn the adapter off");
  qlora::cli::add_answer_options(command, arguments->options);
  command.callback([arguments] { run(*arguments); });
}
