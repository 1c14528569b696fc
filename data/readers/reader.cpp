#include "data/readers/reader.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "base/error.h"
#include "fmt/ranges.h"

namespace qlora::data {
namespace {

const std::vector<Format>& formats() {
  static const std::vector<Format> table = {
      {"alpaca", {"instruction", "input", "output", "system", "history"}, read_alpaca, true},
      {"chat",
       {"messages", "role", "content", "system", "tools", "chat_template_kwargs", "loss_mask"},
       read_chat,
       true,
       true},
      {"sharegpt",
       {"conversations", "from", "value", "system", "tools", "chat_template_kwargs", "loss_mask"},
       read_sharegpt,
       true,
       true},
      {"completion", {"prompt", "completion"}, read_completion, true},
      {"text", {"text"}, read_text, false},
      {"pretokenized",
       {"input_ids", "labels", "mask", "attention_mask", "loss_mask", "completion_mask",
        "assistant_masks"},
       read_pretokenized,
       false},
      {"input_output", {"input", "output"}, read_input_output, true},
      {kPreferenceFormat,
       {"prompt", "chosen", "rejected", "conversations", "from", "value", "system", "tools",
        "chat_template_kwargs"},
       read_preference,
       true,
       true},
  };
  return table;
}

// Other tools' names for our formats.
const std::map<std::string, std::string>& other_names() {
  static const std::map<std::string, std::string> names = {
      {"messages", "chat"},
      {"chat_template", "chat"},
      {"chatml", "chat"},
      {"openai", "chat"},
      {"oai", "chat"},
      {"conversation", "chat"},
      {"conversational", "chat"},
      {"conversations", "sharegpt"},
      {"vicuna", "sharegpt"},
      {"instruction", "alpaca"},
      {"instruct", "alpaca"},
      {"prompt_completion", "completion"},
      {"seq2seq", "input_output"},
      {"text2text", "input_output"},
      {"source_target", "input_output"},
      {"pretrain", "text"},
      {"pretraining", "text"},
      {"pt", "text"},
      {"raw", "text"},
      {"plain", "text"},
      {"corpus", "text"},
      {"txt", "text"},
      {"tokenized", "pretokenized"},
      {"tokens", "pretokenized"},
      {"input_ids", "pretokenized"},
      {"preferences", "preference"},
      {"pairs", "preference"},
      {"paired", "preference"},
      {"ranking", "preference"},
      {"dpo", "preference"},
      {"orpo", "preference"},
  };
  return names;
}

std::string only_letters_and_digits(const std::string& name) {
  std::string letters;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return letters;
}

// What the user may have meant by a format that is none.
std::string hint_for(const std::string& name) {
  const std::string plain = only_letters_and_digits(name);
  for (const Format& format : formats())
    if (plain == only_letters_and_digits(format.name))
      return fmt::format("; that is written {} here", format.name);
  for (const auto& [other, ours] : other_names())
    if (plain == only_letters_and_digits(other)) return fmt::format("; that is {} here", ours);
  for (const char* method : {"kto", "simpo", "rm", "reward", "rlhf"})
    if (plain == method)
      return "; this version learns from demonstrations, and from pairs of a chosen and a rejected "
             "answer (format: preference) by DPO and ORPO";
  for (const char* kind : {"json", "jsonl", "csv", "parquet", "arrow"})
    if (plain == kind) return "; it says what the rows look like, not what kind of file holds them";
  for (const char* family : {"llama", "qwen", "mistral", "gemma", "phi", "zephyr", "deepseek"})
    if (plain.starts_with(family))
      return "; that is a model's chat template: set format: chat (or sharegpt), and leave "
             "data.chat_template out for the model's own template";
  return "";
}

}  // namespace

bool has_conversations(const Format& format) {
  return std::ranges::count(format.fields, "system") > 0;
}

const Format& find_format(const std::string& name, const std::string& key) {
  for (const Format& format : formats())
    if (format.name == name) return format;
  std::vector<std::string> names;
  for (const Format& format : formats()) names.push_back(format.name);
  fail<ConfigError>("{} must be one of {}, got '{}'{}", key, fmt::join(names, ", "), name,
                    hint_for(name));
}

}  // namespace qlora::data
