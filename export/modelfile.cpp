#include "export/modelfile.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "data/chat_renderer.h"

namespace qlora::exporting {
namespace {

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

data::Json message(const char* role, const char* content) {
  return {{"role", role}, {"content", content}};
}

bool renders_alike(const data::ChatTemplate& own, const data::ChatTemplate& known,
                   const data::Tokenizer& tokenizer) {
  const data::Json turns = data::Json::array(
      {message("user", "Hello"), message("assistant", "Hi."), message("user", "And now?")});
  data::Json with_system = turns;
  with_system.insert(with_system.begin(), message("system", "Be brief."));
  const auto found = rendered(own, tokenizer, turns);
  if (!found || found != rendered(known, tokenizer, turns)) return false;
  const auto found_with = rendered(own, tokenizer, with_system);
  return !found_with || found_with == rendered(known, tokenizer, with_system);
}

std::string in_go(const data::ChatTemplate& chat_template, const data::Tokenizer& tokenizer) {
  for (const KnownTemplate& known : kKnown) {
    const data::ChatTemplate builtin(data::builtin_chat_template(known.name));
    if (!renders_alike(chat_template, builtin, tokenizer)) continue;
    std::string text = known.in_go;
    const auto& eos = tokenizer.special_tokens().eos;
    if (const size_t at = text.find("EOS"); at != std::string::npos)
      text.replace(at, 3, eos ? eos->text : "");
    return text;
  }
  return "";
}

}  // namespace

std::string modelfile(const std::string& from, const data::Tokenizer& tokenizer,
                      const data::ChatTemplate* chat_template) {
  std::string text = from;
  if (chat_template)
    if (const std::string go = in_go(*chat_template, tokenizer); !go.empty())
      text += fmt::format("TEMPLATE \"\"\"{}\"\"\"\n", go);
  for (const data::TokenId id : data::answer_end_ids(tokenizer, chat_template))
    text += fmt::format("PARAMETER stop \"{}\"\n", tokenizer.id_to_token(id));
  return text;
}

}  // namespace qlora::exporting
