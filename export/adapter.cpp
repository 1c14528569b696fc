#include "export/adapter.h"

#include <filesystem>

#include "base/error.h"
#include "base/utf8.h"
#include "export/model_card.h"
#include "export/tokenizer_directory.h"
#include "io/atomic_write.h"

namespace qlora::exporting {
namespace fs = std::filesystem;

void fill_adapter_directory(const std::string& directory, const lora::AdapterSet& adapters,
                            const lora::LoraOptions& options, const lora::AdapterBase& base,
                            const data::Tokenizer& tokenizer,
                            const data::ChatTemplate* chat_template, const std::string& training,
                            const lora::SeparateNames* separate) {
  lora::write_adapter(directory, adapters, options, base, separate);
  write_tokenizer(directory, tokenizer, chat_template);
  io::write_file_atomically(
      (fs::path(directory) / "README.md").string(),
      replace_invalid_utf8(model_card(options, base, adapters.has_encoder(), training)));
}

void write_adapter_directory(const std::string& directory, const lora::AdapterSet& adapters,
                             const lora::LoraOptions& options, const lora::AdapterBase& base,
                             const data::Tokenizer& tokenizer,
                             const data::ChatTemplate* chat_template, const std::string& training) {
  io::require_free_space(directory, 2 * static_cast<uint64_t>(adapters.values().nbytes()),
                         "the adapter");
  io::AtomicDirectory target(directory);
  fill_adapter_directory(target.path(), adapters, options, base, tokenizer, chat_template,
                         training);
  target.commit();
}

}  // namespace qlora::exporting
