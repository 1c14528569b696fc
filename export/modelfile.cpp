#include "export/modelfile.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "data/chat_renderer.h"

namespace qlora::exporting {
namespace {

constexpr const char* kQuotes = "\"\"\"";  // around a text of several lines

// A built-in chat template, and the same in Go's template language, as Ollama reads it: it puts BOS
// in front itself. "EOS" stands for the tokenizer's.
struct KnownTemplate {
  const char *name, *in_go;
};

constexpr std::array<KnownTemplate, 6> kKnown = {{
    {"chatml",
     "{{ range .Messages }}<|im_start|>{{ .Role }}\n"
     "{{ .Content }}<|im_end|>\n"
     "{{ end }}<|im_start|>assistant\n"},
    {"llama-3",
     "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
     "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"mistral",
     "{{ $system := \"\" }}{{ range .Messages }}"
     "{{ if eq .Role \"system\" }}{{ $system = printf \"%s\\n\\n\" .Content }}"
     "{{ else if eq .Role \"user\" }}[INST] {{ $system }}{{ .Content }} [/INST]"
     "{{ $system = \"\" }}"
     "{{ else }} {{ .Content }}EOS{{ end }}{{ end }}"},
    {"gemma",
     "{{ $system := \"\" }}{{ range .Messages }}"
     "{{ if eq .Role \"system\" }}{{ $system = printf \"%s\\n\\n\" .Content }}"
     "{{ else if eq .Role \"user\" }}<start_of_turn>user\n"
     "{{ $system }}{{ .Content }}<end_of_turn>\n{{ $system = \"\" }}"
     "{{ else }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}"
     "{{ end }}<start_of_turn>model\n"},
    {"phi-3",
     "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n"},
    {"zephyr", "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}EOS\n{{ end }}<|assistant|>\n"},
}};

// What the template makes of the messages, without BOS; nothing if it refuses them.
std::optional<std::string> rendered(const data::ChatTemplate& chat_template,
                                    const data::Tokenizer& tokenizer, const data::Json& messages) {
  try {
    std::string text =
        data::ChatRenderer(chat_template, tokenizer).render(messages, data::Json::object(), true);
    const auto& bos = tokenizer.special_tokens().bos;
    if (bos && text.starts_with(bos->text)) text.erase(0, bos->text.size());
    return text;
  } catch (const Error&) {
    return std::nullopt;
  }
}

data::Json message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

data::Json conversation(const std::string& system) {
  data::Json turns = data::Json::array(
      {message("user", "Hello"), message("assistant", "Hi."), message("user", "And now?")});
  if (!system.empty()) turns.insert(turns.begin(), message("system", system));
  return turns;
}

// The system message by which `known` renders a conversation that has none to `text`; nothing if
// there is no such.
std::optional<std::string> system_message_in(const std::string& text,
                                             const data::ChatTemplate& known,
                                             const data::Tokenizer& tokenizer) {
  const std::string mark = "the-system-message";
  const auto marked = rendered(known, tokenizer, conversation(mark));
  const size_t at = marked ? marked->find(mark) : std::string::npos;
  if (at == std::string::npos) return std::nullopt;
  const size_t around = marked->size() - mark.size();
  if (text.size() <= around) return std::nullopt;
  std::string system = text.substr(at, text.size() - around);
  if (rendered(known, tokenizer, conversation(system)) != text) return std::nullopt;
  return system;
}

// The system message that makes `known` render every conversation as `own` does, which writes it
// where a conversation has none; empty if `own` writes none, nothing if they are not alike.
std::optional<std::string> system_of_alike(const data::ChatTemplate& own,
                                           const data::ChatTemplate& known,
                                           const data::Tokenizer& tokenizer) {
  const auto found = rendered(own, tokenizer, conversation(""));
  const auto found_with = rendered(own, tokenizer, conversation("Be brief."));
  if (!found) return std::nullopt;
  if (found_with && found_with != rendered(known, tokenizer, conversation("Be brief.")))
    return std::nullopt;
  if (found == rendered(known, tokenizer, conversation(""))) return "";
  if (!found_with || own.has_read_clock()) return std::nullopt;
  const auto system = system_message_in(*found, known, tokenizer);
  return system && system->find(kQuotes) == std::string::npos ? system : std::nullopt;
}

std::string in_go(const KnownTemplate& known, const data::Tokenizer& tokenizer) {
  std::string text = known.in_go;
  const auto& eos = tokenizer.special_tokens().eos;
  if (const size_t at = text.find("EOS"); at != std::string::npos)
    text.replace(at, 3, eos ? eos->text : "");
  return text;
}

// TEMPLATE, and SYSTEM where the chat template has a system message of its own; empty if it is like
// none of the known.
std::string template_lines(const data::ChatTemplate& chat_template,
                           const data::Tokenizer& tokenizer) {
  for (const KnownTemplate& known : kKnown) {
    const data::ChatTemplate builtin(data::builtin_chat_template(known.name));
    const auto system = system_of_alike(chat_template, builtin, tokenizer);
    if (!system) continue;
    std::string lines = fmt::format("TEMPLATE {0}{1}{0}\n", kQuotes, in_go(known, tokenizer));
    if (!system->empty()) lines += fmt::format("SYSTEM {0}{1}{0}\n", kQuotes, *system);
    return lines;
  }
  return "";
}

}  // namespace

Modelfile modelfile(const std::string& from, const data::Tokenizer& tokenizer,
                    const data::ChatTemplate* chat_template) {
  const std::string chat = chat_template ? template_lines(*chat_template, tokenizer) : "";
  Modelfile file{from + chat, chat_template && chat.empty()};
  for (const data::TokenId id : data::answer_end_ids(tokenizer, chat_template))
    file.text += fmt::format("PARAMETER stop \"{}\"\n", tokenizer.id_to_token(id));
  return file;
}

}  // namespace qlora::exporting
