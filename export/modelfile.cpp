#include "export/modelfile.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "data/chat_renderer.h"
#include "export/conversation_form.h"
#include "export/go_template.h"

namespace qlora::exporting {
namespace {

constexpr const char* kQuotes = "\"\"\"";  // around a text of several lines

// NAME """TEXT"""; nothing if the quotes may end elsewhere. Ollama takes three off either end, so
// that the text's own may touch them.
std::optional<std::string> quoted_line(const char* name, const std::string& text) {
  if (text.find(kQuotes) != std::string::npos) return std::nullopt;
  return fmt::format("{0} {1}{2}{1}\n", name, kQuotes, text);
}

void add_system(const std::string& message, Modelfile& file) {
  if (message.empty()) return;
  if (const auto line = quoted_line("SYSTEM", message))
    file.text += *line;
  else
    file.differences.emplace_back(
        "`Modelfile` has no `SYSTEM`: the system message of conversations without one has three "
        "double quotes in a row, which cannot be said there. Send it with each conversation.");
}

// Of prompts as they are: the last user's message. Ollama would put those before it in front of
// {{ .Prompt }}. Text that Go's language would take for its own is written as a string of it.
std::string raw_template(const std::string& separator) {
  const std::string last =
      "{{ $p := \"\" }}{{ range .Messages }}{{ if eq .Role \"user\" }}{{ $p = .Content }}{{ end }}"
      "{{ end }}{{ $p }}";
  if (separator.find("{{") == std::string::npos) return last + separator;
  return fmt::format("{}{{{{ {} }}}}", last, data::Json(separator).dump());
}

void tell_differences(const ConversationForm& form, const data::ChatTemplate& chat_template,
                      const data::Tokenizer& tokenizer, std::vector<std::string>& differences) {
  if (form.trims)
    differences.emplace_back(
        "The chat template takes white space off the ends of messages, which Ollama's language "
        "cannot: send messages without it.");
  if (form.strips_thoughts)
    differences.emplace_back(
        "The chat template takes what stands before `</think>` off earlier answers, which Ollama's "
        "language cannot: send earlier answers without their thoughts.");
  if (form.system == ConversationForm::System::kRefused)
    differences.emplace_back(
        "The chat template takes no system message; with Ollama one stands in front of the first "
        "question.");
  if (form.system == ConversationForm::System::kLeftOut)
    differences.emplace_back(
        "The chat template leaves system messages out, and so does `TEMPLATE`.");
  if (data::ChatRenderer(chat_template, tokenizer).writes_tools())
    differences.emplace_back(
        "The chat template also knows tools; `TEMPLATE` writes neither them nor their results.");
}

std::string stop_line(const std::string& text) {
  return fmt::format("PARAMETER stop \"{}\"\n", text);
}

// The first line of what stands behind an answer, without the white space around it; empty where it
// cannot be written between quotes.
std::string end_in_text(const ConversationForm& form) {
  constexpr const char* blanks = " \t\r\n";
  const std::string& text = form.behind_answer;
  const size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string::npos) return "";
  const std::string line = text.substr(begin, text.find('\n', begin) - begin);
  const std::string end = line.substr(0, line.find_last_not_of(blanks) + 1);
  return end.find_first_of("\"\\") == std::string::npos ? end : "";
}

}  // namespace

Modelfile modelfile(const std::string& from, const data::Tokenizer& tokenizer,
                    const data::ChatTemplate* chat_template, const data::TrainedPrompts& trained) {
  Modelfile file{from};
  if (trained.are_raw)
    if (const auto line = quoted_line("TEMPLATE", raw_template(trained.separator))) {
      file.text += *line;
      file.differences.emplace_back(
          "The training put prompts as they are, and so does `TEMPLATE`: it writes the last "
          "message alone, and no system message.");
      for (const data::TokenId id : data::answer_end_ids(tokenizer, nullptr))
        file.text += stop_line(tokenizer.id_to_token(id));
      return file;
    }
  const auto form = chat_template ? conversation_form(*chat_template, tokenizer) : std::nullopt;
  if (const auto line = form ? quoted_line("TEMPLATE", go_template(*form)) : std::nullopt) {
    file.text += *line;
    add_system(trained.system.empty() ? form->default_system : trained.system, file);
    tell_differences(*form, *chat_template, tokenizer, file.differences);
  } else if (chat_template) {
    file.lacks_template = true;
    file.differences.emplace_back(
        "`Modelfile` has no `TEMPLATE`: the chat template puts conversations together in a way "
        "that was not found to be sayable in Ollama's language. Ollama then goes by the template "
        "in the GGUF file of the model, which it may not understand, and which beside an adapter "
        "need not be the one trained with; if its answers are not those of `qlora chat`, write a "
        "`TEMPLATE`.");
    add_system(trained.system, file);
  }
  for (const data::TokenId id : data::answer_end_ids(tokenizer, chat_template))
    file.text += stop_line(tokenizer.id_to_token(id));
  if (form && data::ends_of_turn(tokenizer, *chat_template).empty())
    if (const std::string end = end_in_text(*form); !end.empty()) file.text += stop_line(end);
  return file;
}

}  // namespace qlora::exporting
