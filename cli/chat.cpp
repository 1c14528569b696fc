#include "cli/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/nearest_word.h"
#include "base/stop.h"
#include "base/terminal.h"
#include "base/utf8.h"
#include "cli/answer_options.h"
#include "cli/answer_stream.h"
#include "cli/line_reader.h"
#include "cli/model_choice.h"
#include "data/chat_renderer.h"
#include "data/embedded_tokens.h"
#include "data/tokenizers/generation_config.h"
#include "model/generate.h"
#include "model/position_limit.h"
#include "recipes/models/original_base.h"

namespace {

using qlora::data::Json;
using qlora::recipes::TrainedModel;

struct ChatArguments {
  qlora::recipes::ModelChoice choice;
  std::string system;
  bool no_history = false;
  qlora::model::GenerateOptions options;
};

struct ChatCommand {
  const char* name;
  const char* help;
};

constexpr ChatCommand kCommands[] = {
    {"/help", "what can be typed here"},
    {"/reset", "start over; the system message stays (/new is the same)"},
    {"/system TEXT", "start over with this system message; without TEXT, with none"},
    {"/base", "the last message answered without the adapter, to compare; not kept"},
    {"/quit", "end, as Ctrl-D does"}};

std::string first_word(const std::string& text) {
  return text.substr(0, text.find_first_of(" \t"));
}

// Without the white space between them.
std::string behind_first_word(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t", first_word(text).size());
  return begin == std::string::npos ? "" : text.substr(begin);
}

void print_help() {
  constexpr size_t kColumn = 16;
  const size_t width = qlora::terminal_width(stderr);
  for (const ChatCommand& command : kCommands)
    std::cerr << qlora::list_line(std::string("  ") + command.name, command.help, kColumn, width);
  std::cerr
      << qlora::wrapped(
             "Anything else is a message. Ctrl-C stops an answer, and at the prompt drops the "
             "line. A message that begins with / is typed with a space before it.",
             width, 0)
      << '\n';
}

// While it lives, Ctrl-C is a wish to stop the answer, and does nothing where there is none: the
// conversation is kept, however often it is pressed. One is made for each answer, and at a terminal
// another one for the whole chat, since the terminal's signals reach the program between an answer
// and the moment at which the prompt makes Ctrl-C a key.
class StopAnswer {
 public:
  StopAnswer() {
    wanted_ = false;
    struct sigaction action {};
    action.sa_handler = [](int) { wanted_ = true; };
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, &before_);
  }
  ~StopAnswer() { sigaction(SIGINT, &before_, nullptr); }
  StopAnswer(const StopAnswer&) = delete;
  StopAnswer& operator=(const StopAnswer&) = delete;

  const std::atomic<bool>& wanted() const { return wanted_; }

 private:
  static inline std::atomic<bool> wanted_{false};
  struct sigaction before_ {};
};

class Chat {
 public:
  Chat(const TrainedModel& trained, const ChatArguments& arguments)
      : trained_(trained),
        choice_(arguments.choice),
        options_(arguments.options),
        limit_(qlora::model::position_limit(trained.base.model->architecture())),
        system_(arguments.system) {
    options_.stop_ids =
        qlora::data::answer_end_ids(*trained.base.tokenizer, trained.base.chat_template.get());
    options_.obeys_stop = true;
    if (!trained.adapters) tell_changed_base();
    reset();
  }

  // False once the chat is to end.
  bool take(const std::string& line) {
    if (line.empty()) return true;
    if (const auto offset = qlora::find_invalid_utf8(line)) {
      qlora::log::error("the line is no valid UTF-8 from its byte {} on and was left out",
                        *offset + 1);
      return true;
    }
    if (!line.starts_with('/')) {
      answer_message(line.starts_with(' ') ? line.substr(1) : line);
      return true;
    }
    return obey(first_word(line), behind_first_word(line));
  }

 private:
  int64_t positions() const { return limit_.tokens; }

  void reset() {
    told_of_room_ = false;
    messages_ = Json::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  }

  bool obey(const std::string& command, const std::string& text) {
    if (command == "/quit" || command == "/exit") return false;
    if (command == "/help") {
      print_help();
    } else if (command == "/reset" || command == "/new") {
      reset();
      std::cerr << "started over\n";
    } else if (command == "/system") {
      system_ = text;
      reset();
      std::cerr << (text.empty() ? "started over without a system message\n"
                                 : "started over with this system message\n");
    } else if (command == "/base") {
      answer_by_base();
    } else {
      tell_unknown(command);
    }
    return true;
  }

  static void tell_unknown(const std::string& command) {
    std::vector<std::string> names;
    for (const ChatCommand& known : kCommands) names.push_back(first_word(known.name));
    const std::string near = qlora::nearest_word(command, names);
    qlora::log::error("there is no command {}{} /help lists them", command,
                      near.empty() ? ";" : "; did you mean " + near + "?");
  }

  void answer_message(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    const auto answer = answered(messages_, true);
    if (!answer || answer->find_first_not_of(" \t\r\n") == std::string::npos) {
      messages_.erase(messages_.size() - 1);  // templates refuse an answer without text
      return;
    }
    messages_.push_back({{"role", "assistant"}, {"content", *answer}});
    tell_little_room();
  }

  void answer_by_base() {
    Json messages = messages_;
    while (!messages.empty() && messages.back()["role"] != "user")
      messages.erase(messages.size() - 1);
    if (!trained_.adapters) {
      qlora::log::error("/base: this model has no adapter; give a run, or --adapter");
    } else if (messages.empty()) {
      qlora::log::error("/base: there is no message to answer yet");
    } else {
      tell_changed_base();
      answered(messages, false);
    }
  }

  // Where the base is another than the model that people know.
  void tell_changed_base() const {
    const std::string said = qlora::recipes::changed_base_sentence(choice_, trained_);
    if (!said.empty()) qlora::log::write_warning(said);
  }

  // Nothing, after a line that says why, if the template or the model refuses the messages.
  std::optional<std::vector<qlora::data::TokenId>> prompt_of(const Json& messages) const {
    const auto& base = trained_.base;
    try {
      auto ids = qlora::data::conversation_prompt(messages, *base.chat_template, *base.tokenizer);
      qlora::data::require_embedded(ids, *base.tokenizer, base.model->architecture().vocab_size);
      return ids;
    } catch (const qlora::FormatError& refusal) {
      qlora::log::write_error(refusal.what());
      return std::nullopt;
    }
  }

  // What was printed, also if it was stopped; nothing if the conversation is refused or too long.
  std::optional<std::string> answered(const Json& messages, bool adapters_enabled) {
    const StopAnswer stop;
    const auto ids = prompt_of(messages);
    if (!ids) return std::nullopt;
    const auto& prompt = *ids;
    if (std::ssize(prompt) >= positions()) {
      tell_too_long(messages, std::ssize(prompt));
      return std::nullopt;
    }
    ++options_.seed;
    options_.adapters_enabled = adapters_enabled;
    return generated(prompt, stop);
  }

  // Of a last message that leaves no room for an answer.
  void tell_too_long(const Json& messages, int64_t tokens) const {
    const bool is_first = messages.size() == (system_.empty() ? 1U : 2U);
    qlora::log::error(
        "with this message the conversation has {} tokens, and the model takes {} ({}), its answer "
        "among them; the message was left out: write a shorter one{}",
        tokens, positions(), limit_.said_by, is_first ? "" : ", or start over with /reset");
  }

  // Of an answer that did not come to its end by itself.
  void tell_cut_off(int64_t tokens) const {
    if (tokens_ < positions()) {
      std::cerr << fmt::format(
          "(cut off after {} tokens; --max-new-tokens N allows longer answers)\n", tokens);
      return;
    }
    qlora::log::warning(
        "the answer is cut off after {} tokens: with it the conversation fills the {} positions "
        "that the model has learnt ({}); start over with /reset, and with a smaller "
        "--max-new-tokens more messages have room",
        tokens, positions(), limit_.said_by);
  }

  // Once, where a message and the longest answer to it might not fit any more.
  void tell_little_room() {
    constexpr int64_t kMessage = 256;
    const int64_t left = positions() - tokens_;
    const int64_t little =
        std::min(positions() / 4, std::min(options_.max_new_tokens, positions()) + kMessage);
    if (told_of_room_ || left <= 0 || left >= little) return;
    told_of_room_ = true;
    qlora::log::warning(
        "{} of the {} tokens that the model takes are left for the next message and its answer; "
        "/reset starts over",
        left, positions());
  }

  std::string generated(const std::vector<qlora::data::TokenId>& prompt, const StopAnswer& stop) {
    qlora::cli::AnswerStream stream(*trained_.base.tokenizer);
    const qlora::ObeyStop obeyed(stop.wanted());
    tokens_ = std::ssize(prompt);
    bool has_ended = false;
    try {
      qlora::model::generate(*trained_.base.model, {prompt}, options_, [&](int64_t, int32_t id) {
        stream.add(id);
        ++tokens_;
        has_ended = std::ranges::count(options_.stop_ids, id) > 0;
        return !stop.wanted();
      });
    } catch (const qlora::Stopped&) {
    }
    stream.finish();
    if (stop.wanted())
      std::cerr << "(stopped)\n";
    else if (!has_ended)
      tell_cut_off(tokens_ - std::ssize(prompt));
    return stream.text();
  }

  const TrainedModel& trained_;
  const qlora::recipes::ModelChoice& choice_;
  qlora::model::GenerateOptions options_;
  qlora::model::PositionLimit limit_;
  std::string system_;
  Json messages_;
  int64_t tokens_ = 0;  // of the last prompt with its answer
  bool told_of_room_ = false;
};

void run(ChatArguments arguments) {
  qlora::check_utf8(arguments.system, "--system");
  arguments.choice.few_rows = true;
  qlora::cli::need_chat_template(arguments.choice, "use qlora generate --prompt TEXT --raw",
                                 "use qlora generate --prompt TEXT");
  const TrainedModel trained = qlora::recipes::open_model(arguments.choice);
  qlora::data::warn_of_generation_keys(*trained.base.tokenizer, trained.base.path);
  qlora::cli::tell_trained_prompts(trained, std::nullopt, !arguments.system.empty());
  qlora::cli::LineReader lines(arguments.no_history ? "" : qlora::cli::state_file("chat_history"));
  std::optional<StopAnswer> whole_chat;
  if (qlora::cli::LineReader::is_at_terminal()) whole_chat.emplace();
  std::cerr << "Type a message; /help lists the commands, Ctrl-D ends.\n";
  Chat chat(trained, arguments);
  for (bool going = true; going;) {
    std::cerr << '\n';
    const auto line = lines.read("> ");
    going = line && chat.take(*line);
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
  qlora::cli::add_answer_options(command, arguments->options);
  command.add_flag("--no-history", arguments->no_history,
                   "Remember what is typed for this chat alone, and not in "
                   "~/.local/state/qlora/chat_history");
  command.callback([arguments] { run(*arguments); });
}
