// Rows of Stanford Alpaca: {"instruction", "input", "output"}, with LLaMA-Factory's "system" and
// "history".
#include "base/error.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"

namespace qlora::data {
namespace {

Json message(const char* role, const std::string& content) {
  return Json{{"role", role}, {"content", content}};
}

// The prompt that Alpaca's authors trained with; a system text takes the place of its first
// paragraph.
std::string alpaca_prompt(const std::optional<std::string>& system, const std::string& instruction,
                          const std::string& input) {
  const std::string preamble =
      input.empty() ? "Below is an instruction that describes a task. Write a "
                      "response that appropriately completes the request."
                    : "Below is an instruction that describes a task, paired with an "
                      "input that provides further context. Write a response that "
                      "appropriately completes the request.";
  std::string prompt = system.value_or(preamble) + "\n\n### Instruction:\n" + instruction + "\n\n";
  if (!input.empty()) prompt += "### Input:\n" + input + "\n\n";
  return prompt + "### Response:\n";
}

void append_history(const Json& history, Json& messages) {
  for (size_t i = 0; i < history.size(); ++i) {
    const Json& pair = history[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      fail<FormatError>("entry {} of history must be a pair of strings, instruction and answer", i);
    }
    messages.push_back(message("user", pair[0].get<std::string>()));
    messages.push_back(message("assistant", pair[1].get<std::string>()));
  }
}

}  // namespace

Record read_alpaca(const Row& row, const ReaderOptions& options) {
  const std::string instruction = row.text("instruction");
  const std::string input = row.optional_text("input").value_or("");
  const std::string output = row.text("output");
  const std::optional<std::string> system = system_to_add(row, Json::array());
  const bool has_history = row.find("history") != nullptr && !row.array("history").empty();
  if (output.find_first_not_of(" \t\r\n") == std::string::npos) {
    fail<FormatError>(
        "the field '{}' is empty: there is nothing to train on; fill it in or remove the row",
        row.file_field("output"));
  }
  if (options.alpaca_prompt) {
    if (has_history) {
      fail<FormatError>(
          "history has no place in the alpaca prompt; set data.prompt_style: chat_template");
    }
    return PromptCompletion{alpaca_prompt(system, instruction, input), output};
  }
  Conversation conversation;
  if (system) conversation.messages.push_back(message("system", *system));
  if (has_history) append_history(row.array("history"), conversation.messages);
  const std::string separator = instruction.empty() || input.empty() ? "" : "\n\n";
  conversation.messages.push_back(message("user", instruction + separator + input));
  conversation.messages.push_back(message("assistant", output));
  check_conversation(conversation);
  return conversation;
}

}  // namespace qlora::data
