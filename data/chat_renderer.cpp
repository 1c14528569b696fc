#include "data/chat_renderer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "data/readers/conversation.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

// The last characters of a text, for a message about where two texts part.
std::string tail(const std::string& text) {
  constexpr size_t kShown = 40;
  return io::json_text_in_utf8(
      Json(text.size() > kShown ? "..." + text.substr(text.size() - kShown) : text));
}

std::string head(const std::string& text) {
  constexpr size_t kShown = 40;
  return io::json_text_in_utf8(Json(text.size() > kShown ? text.substr(0, kShown) + "..." : text));
}

[[noreturn]] void fail_on_generation_prompt(size_t message, const std::string& prompt,
                                            const std::string& whole) {
  const auto differ = std::mismatch(prompt.begin(), prompt.end(), whole.begin(), whole.end());
  const std::string shared(prompt.begin(), differ.first);
  fail<FormatError>(
      "the chat template writes message {} (assistant) as {} after {}, but its generation prompt "
      "goes on with {}: training on this row would teach an answer that is never asked for; set "
      "data.chat_template to a template whose answers begin with its generation prompt",
      message, head(whole.substr(shared.size())), tail(shared), head(prompt.substr(shared.size())));
}

std::string read_template_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) fail<IoError>("{}: cannot read the chat template", path);
  return text.str();
}

}  // namespace

ChatRenderer::ChatRenderer(const ChatTemplate& chat_template, const Tokenizer& tokenizer)
    : template_(chat_template) {
  variables_["date_string"] = kDateString;
  const SpecialTokens& special = tokenizer.special_tokens();
  if (special.bos) variables_["bos_token"] = special.bos->text;
  if (special.eos) variables_["eos_token"] = special.eos->text;
  if (special.unk) variables_["unk_token"] = special.unk->text;
  if (special.pad) variables_["pad_token"] = special.pad->text;
}

std::string ChatRenderer::render(const Json& messages, const Json& context,
                                 bool add_generation_prompt) const {
  Json variables = variables_;
  for (const auto& [name, value] : context.items()) variables[name] = value;
  return template_.render(messages, variables, add_generation_prompt);
}

std::vector<Turn> ChatRenderer::turns(const Conversation& conversation,
                                      const PromptEncoder& encoder) const {
  std::vector<Turn> turns;
  Json messages = Json::array();
  for (size_t i = 0; i < conversation.messages.size(); ++i) {
    const Json& message = conversation.messages[i];
    if (!is_trained_turn(message)) {
      messages.push_back(message);
      continue;
    }
    std::string prompt = render(messages, conversation.context, true);
    messages.push_back(message);
    std::string whole = render(messages, conversation.context, false);
    if (!whole.starts_with(prompt)) fail_on_generation_prompt(i, prompt, whole);
    turns.push_back(make_turn(std::move(prompt), std::move(whole), encoder));
    if (turns.back().answer(encoder.tokenizer()).find_first_not_of(" \t\r\n") ==
        std::string::npos) {
      fail<FormatError>(
          "the chat template writes nothing of message {} (assistant){}", i,
          message.contains("tool_calls") && !writes_tool_calls()
              ? ": it does not know tool_calls; set data.chat_template to one that does"
              : "");
    }
  }
  return turns;
}

bool ChatRenderer::writes_tools() const {
  return template_.source().find("tools") != std::string::npos;
}

bool ChatRenderer::writes_tool_calls() const {
  return template_.source().find("tool_calls") != std::string::npos;
}

bool ChatRenderer::writes_the_date() const {
  return template_.source().find("strftime_now") != std::string::npos &&
         template_.source().find("date_string") == std::string::npos;
}

std::vector<TokenId> conversation_prompt(const Json& messages, const ChatTemplate& chat_template,
                                         const Tokenizer& tokenizer, const Json& context) {
  Conversation conversation{messages, context};
  check_conversation(conversation, false);
  if (conversation.messages.back()["role"] == "assistant") {
    fail<FormatError>("a prompt must end with a user or tool message, found an assistant's");
  }
  const ChatRenderer renderer(chat_template, tokenizer);
  return PromptEncoder(tokenizer).encode(
      renderer.render(conversation.messages, conversation.context, true));
}

std::unique_ptr<ChatTemplate> choose_chat_template(const std::string& choice,
                                                   const Tokenizer& tokenizer) {
  if (choice.empty()) {
    if (tokenizer.chat_template().empty()) return nullptr;
    return std::make_unique<ChatTemplate>(tokenizer.chat_template(), "the model's chat template");
  }
  const bool is_text =
      choice.find("{{") != std::string::npos || choice.find("{%") != std::string::npos;
  if (is_text) return std::make_unique<ChatTemplate>(choice, "data.chat_template");
  std::error_code ignored;
  if (std::filesystem::is_regular_file(choice, ignored)) {
    return std::make_unique<ChatTemplate>(read_template_file(choice), choice);
  }
  return std::make_unique<ChatTemplate>(builtin_chat_template(choice), choice);
}

}  // namespace qlora::data
