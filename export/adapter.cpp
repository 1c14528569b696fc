#include "export/adapter.h"

#include <filesystem>

#include "base/error.h"
#include "io/atomic_write.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

std::string model_card(const lora::LoraOptions& options, const lora::AdapterBase& base) {
  return fmt::format(
      "---\nlibrary_name: peft\nbase_model: {0}\ntags:\n- lora\n- qlora\n---\n\n"
      "A LoRA adapter (rank {1}, alpha {2}) for {0}, trained with qlora.cpp on a base in {3} "
      "(quantization: {4}).\n\n"
      "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
      "model = AutoModelForCausalLM.from_pretrained(\"{0}\")\n"
      "model = PeftModel.from_pretrained(model, \"path/to/this/directory\")\n```\n",
      base.name, options.rank, options.alpha, base.dtype, base.quantization.to_text());
}

}  // namespace

void fill_adapter_directory(const std::string& directory, const lora::AdapterSet& adapters,
                            const lora::LoraOptions& options, const lora::AdapterBase& base,
                            const data::Tokenizer& tokenizer) {
  lora::write_adapter(directory, adapters, options, base);
  tokenizer.write_files(directory);
  io::write_file_atomically((fs::path(directory) / "README.md").string(),
                            model_card(options, base));
}

void write_adapter_directory(const std::string& directory, const lora::AdapterSet& adapters,
                             const lora::LoraOptions& options, const lora::AdapterBase& base,
                             const data::Tokenizer& tokenizer) {
  io::require_free_space(directory, 2 * static_cast<uint64_t>(adapters.values().nbytes()),
                         "the adapter");
  using enum io::AtomicDirectory::Existing;
  const bool is_adapter = fs::exists(fs::path(directory) / "adapter_config.json");
  io::AtomicDirectory target(directory, is_adapter ? kReplace : kRefuse);
  fill_adapter_directory(target.path(), adapters, options, base, tokenizer);
  target.commit();
}

}  // namespace qlora::exporting
