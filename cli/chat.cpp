#include "cli/chat.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "cli/answer_stream.h"
#include "cli/model_choice.h"
#include "data/chat_renderer.h"
#include "data/embedded_tokens.h"
#include "model/generate.h"

namespace {

using qlora::data::Json;
using qlora::recipes::TrainedModel;

struct ChatArguments {
  qlora::recipes::ModelChoice choice;
  std::string system;
  qlora::model::GenerateOptions options;
};

Json first_messages(const std::string& system) {
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  return messages;
}

// Answers the conversation and puts the answer behind it.
void answer(const TrainedModel& trained, qlora::model::GenerateOptions options, Json& messages) {
  const auto& base = trained.base;
  const auto prompt =
      qlora::data::conversation_prompt(messages, *base.chat_template, *base.tokenizer);
  qlora::data::require_embedded(prompt, *base.tokenizer, base.model->config().vocab_size);
  qlora::cli::AnswerStream stream(*base.tokenizer);
  ++options.seed;
  qlora::model::generate(*base.model, {prompt}, options, [&](int64_t, int32_t id) {
    stream.add(id);
    return true;
  });
  stream.finish();
  messages.push_back({{"role", "assistant"}, {"content", stream.text()}});
}

void run(ChatArguments arguments) {
  arguments.choice.few_rows = true;
  const TrainedModel trained = qlora::recipes::open_model(arguments.choice);
  if (!trained.base.chat_template) {
    throw qlora::ConfigError(
        "the model has no chat template; use qlora generate --prompt TEXT --raw");
  }
  qlora::model::GenerateOptions options = arguments.options;
  options.stop_ids = trained.base.tokenizer->special_tokens().end_of_generation;
  std::cerr << "Type a message; /new starts over, /quit or Ctrl-D ends.\n";
  Json messages = first_messages(arguments.system);
  for (std::string line; std::cerr << "\n> " && std::getline(std::cin, line);) {
    if (line == "/quit") break;
    if (line == "/new") {
      messages = first_messages(arguments.system);
    } else if (!line.empty()) {
      messages.push_back({{"role", "user"}, {"content", line}});
      answer(trained, options, messages);
    }
  }
  std::cerr << '\n';
}

}  // namespace

void add_chat_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<ChatArguments>();
  arguments->options.temperature = 0.7;
  arguments->options.top_p = 0.9;
  arguments->options.max_new_tokens = 512;
  qlora::cli::Command command = app.add_subcommand("chat", "Talk to a model");
  qlora::cli::add_model_choice(command, arguments->choice);
  command.add_option("--system", arguments->system, "System message");
  auto& options = arguments->options;
  command.add_option("--temperature", options.temperature, "0: the most likely token")
      .not_negative()
      .with_shown_default();
  command.add_option("--top-p", options.top_p, "Sample from the tokens of this total probability")
      .between(0.0, 1.0)
      .with_shown_default();
  command.add_option("--max-new-tokens", options.max_new_tokens, "Longest answer")
      .positive()
      .with_shown_default();
  command.add_option("--seed", options.seed, "Of the random choices").with_shown_default();
  command.callback([arguments] { run(*arguments); });
}
