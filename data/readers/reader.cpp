#include "data/readers/reader.h"

#include "base/error.h"
#include "fmt/ranges.h"

namespace qlora::data {
namespace {

const std::vector<Format>& formats() {
  static const std::vector<Format> table = {
      {"alpaca", {"instruction", "input", "output", "system", "history"}, read_alpaca, true},
      {"chat", {"messages", "role", "content", "tools", "chat_template_kwargs"}, read_chat, true},
      {"sharegpt", {"conversations", "from", "value", "system", "tools"}, read_sharegpt, true},
      {"completion", {"prompt", "completion"}, read_completion, true},
      {"text", {"text"}, read_text, false},
      {"pretokenized", {"input_ids", "labels", "mask", "attention_mask"}, read_pretokenized, false},
  };
  return table;
}

}  // namespace

const Format& find_format(const std::string& name) {
  std::vector<std::string> names;
  for (const Format& format : formats()) {
    if (format.name == name) return format;
    names.push_back(format.name);
  }
  fail<ConfigError>("data: format must be one of {}, got '{}'", fmt::join(names, ", "), name);
}

}  // namespace qlora::data
