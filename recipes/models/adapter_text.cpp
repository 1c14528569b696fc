#include "recipes/models/adapter_text.h"

#include <exception>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/warn_once.h"
#include "data/tokenizers/token_difference.h"
#include "export/tokenizer_directory.h"
#include "lora/adapter_file.h"
#include "model/hub_cache.h"
#include "recipes/given_adapter.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// The recipe of the run whose checkpoint holds the adapter; nothing where none can be read. By the
// path as it is given, of a checkpoint that lies on another disk, or by where `best` leads.
std::optional<Recipe> run_of_checkpoint(const std::string& adapter) {
  std::error_code error;
  const auto is_checkpoint = [](const fs::path& path) {
    return trainer::step_of_checkpoint(path.filename().string()).has_value();
  };
  fs::path checkpoint = fs::absolute(adapter, error).lexically_normal().parent_path();
  if (!is_checkpoint(checkpoint)) checkpoint = fs::canonical(adapter, error).parent_path();
  if (!is_checkpoint(checkpoint)) return std::nullopt;
  const std::string run = checkpoint.parent_path().string();
  try {
    if (is_being_replaced(run)) return std::nullopt;
    return read_run_recipe(run);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

data::ModelTemplates templates_of_adapter(const std::string& directory) {
  data::ModelTemplates templates = data::chat_templates_in(directory);
  if (!templates.chat.empty()) return templates;
  const auto run = run_of_checkpoint(directory);
  if (!run) return templates;
  if (!run->data.chat_template.empty()) return {run->data.chat_template, ""};
  return {run->data.trains_alpaca_prompts() ? "alpaca" : "", ""};
}

ChosenTokenizer tokenizer_with(const std::string& model, const std::string& adapter) {
  ChosenTokenizer chosen{data::load_tokenizer(model::resolve_model_path(model))};
  if (adapter.empty()) return chosen;
  std::unique_ptr<data::Tokenizer> own;
  try {
    own = data::load_adapter_tokenizer(adapter, *chosen.tokenizer);
  } catch (const Error& error) {
    log::warning_once("the tokenizer in {} cannot be read, and the model's is used: {}", adapter,
                      error.what());
  }
  if (!own) return chosen;
  // An adapter that was written here names the end of its template's turns as eos_token
  // (export/tokenizer_directory.h), which is no other tokenizer.
  const bool is_foreign = !lora::read_adapter_base(adapter);
  const std::string difference = data::token_difference(*own, *chosen.tokenizer, is_foreign);
  if (difference.empty()) return chosen;
  log::warning_once("{} has a tokenizer of its own, which is used: {}", adapter, difference);
  return {std::move(own), true};
}

ChosenTokenizer tokenizer_of(const Recipe& recipe) {
  std::string adapter = recipe.lora.from_adapter;
  if (!adapter.empty() && !has_given_adapter(recipe)) {
    adapter = (fs::path(recipe.output.dir) / "adapter").string();
    if (!fs::exists(adapter)) adapter.clear();
  }
  return tokenizer_with(recipe.model.path, adapter);
}

void write_texts_of_checkpoint(const std::string& directory, const data::Tokenizer& tokenizer,
                               bool is_adapters, const data::ChatTemplate* chat_template) {
  if (is_adapters)
    exporting::write_tokenizer(directory, tokenizer, chat_template);
  else if (chat_template)
    exporting::write_other_template(directory, tokenizer, *chat_template);
}

}  // namespace qlora::recipes
