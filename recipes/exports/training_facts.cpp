#include "recipes/exports/training_facts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "export/card_text.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "io/user_path.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

struct Figures {
  int64_t steps = 0, tokens = 0, supervised_tokens = 0;
  double epochs = 0, first_loss = 0, last_loss = 0;
  std::optional<double> last_eval_loss, best_eval_loss;
};

// 0 where the line has none.
template <typename T>
T number_in(const nlohmann::json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? found->get<T>() : T{0};
}

void add_line(const nlohmann::json& line, Figures& figures) {
  if (const auto loss = line.find("eval_loss"); loss != line.end() && loss->is_number()) {
    figures.last_eval_loss = loss->get<double>();
    figures.best_eval_loss =
        std::min(*figures.last_eval_loss, figures.best_eval_loss.value_or(*figures.last_eval_loss));
  }
  const auto loss = line.find("loss");
  if (loss == line.end() || !loss->is_number()) return;
  figures.last_loss = loss->get<double>();
  if (figures.steps == 0) figures.first_loss = figures.last_loss;
  figures.steps = number_in<int64_t>(line, "step");
  figures.epochs = number_in<double>(line, "epoch");
  figures.tokens += number_in<int64_t>(line, "tokens");
  figures.supervised_tokens += number_in<int64_t>(line, "supervised_tokens");
}

Figures figures_of(const std::string& run_dir, std::optional<int64_t> last_step) {
  Figures figures;
  std::ifstream file(fs::path(run_dir) / "metrics.jsonl");
  for (std::string text; std::getline(file, text);) {
    const nlohmann::json line = io::json_or_discarded(text);
    if (line.is_object() && (!last_step || number_in<int64_t>(line, "step") <= *last_step))
      add_line(line, figures);
  }
  return figures;
}

std::string list_of(const std::vector<data::DatasetOptions>& datasets) {
  std::string text;
  for (const data::DatasetOptions& dataset : datasets)
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ",
                        exporting::code_span(io::last_part(dataset.path)), dataset.format);
  return text;
}

bool trains_all(const data::DataOptions& data) {
  return data.train_on == data::TrainOn::kAll ||
         std::ranges::all_of(data.train, [](const auto& rows) { return rows.format == "text"; });
}

std::string data_section(const Recipe& recipe) {
  const data::DataOptions& data = recipe.data;
  std::string text = "## Data\n\nTrained on " + list_of(data.train);
  if (!data.eval.empty()) text += ", evaluated on " + list_of(data.eval);
  if (data.eval_fraction > 0)
    text += fmt::format(", of which {:.3g} % of the rows were set aside for evaluation",
                        100 * data.eval_fraction);
  if (data.has_pairs())
    return text + fmt::format(
                      ". Pairs of answers, {} with beta {}; answers with their prompts of up "
                      "to {} tokens.\n",
                      recipe.train.objective, recipe.train.beta, data.sequence_length);
  return text + fmt::format(". Loss on {}; sequences of up to {} tokens{}.\n",
                            trains_all(data) ? "all tokens" : "the answers alone",
                            data.sequence_length, data.packing ? ", packed" : "");
}

// "bfloat16 (auto)"; the recipe's word where it is not known what it came to.
std::string shown_compute_dtype(const std::string& wish, const std::string& resolved) {
  if (resolved.empty()) return wish;
  return wish == "auto" ? resolved + " (auto)" : resolved;
}

std::string settings_section(const Recipe& recipe, const std::string& compute_dtype) {
  std::string text = "\n## Settings\n\n| setting | value |\n|---|---|\n";
  const auto add = [&text](const char* name, const auto& value) {
    text += fmt::format("| {} | {} |\n", name, value);
  };
  const lora::LoraOptions& lora = recipe.lora;
  add("lora.rank, alpha, dropout", fmt::format("{}, {}, {}", lora.rank, lora.alpha, lora.dropout));
  add("lora.targets", fmt::format("{}", fmt::join(lora.targets, ", ")));
  add("lora.init", lora.init);
  add("optim.name", recipe.optim.name);
  add("optim.lr, schedule", fmt::format("{}, {}", recipe.optim.lr, recipe.optim.schedule));
  add("sequences a step", recipe.train.micro_batch_size * recipe.train.gradient_accumulation_steps);
  add("train.compute_dtype", shown_compute_dtype(recipe.train.compute_dtype, compute_dtype));
  add("train.seed", recipe.train.seed);
  return text;
}

std::string figures_section(const Figures& figures) {
  if (figures.steps == 0) return "";
  std::string text = fmt::format(
      "\n## Figures\n\nThe training took {} steps, which are {:.2f} epochs, and read {} tokens, of "
      "which {} were trained on. The loss was {:.4f} in the first step and {:.4f} in the last",
      figures.steps, figures.epochs, figures.tokens, figures.supervised_tokens, figures.first_loss,
      figures.last_loss);
  if (figures.last_eval_loss)
    text += fmt::format("; on the rows held out it was {:.4f} at the end and {:.4f} at best",
                        *figures.last_eval_loss, *figures.best_eval_loss);
  return text + ".\n";
}

// "run/adapter" of a run's, else the name of the directory.
std::string adapter_name(const std::string& directory) {
  fs::path path = fs::absolute(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const fs::path run = path.parent_path().filename();
  return path.filename() == "adapter" ? (run / "adapter").string() : path.filename().string();
}

// What the card in `directory` says of the training; empty if it is none of this program's.
std::string sections_of_card(const std::string& directory) {
  const fs::path file = fs::path(directory) / "README.md";
  if (!fs::is_regular_file(file)) return "";
  const std::string card = io::read_bytes(file.string());
  const size_t begin = card.find("\n## Data\n");
  const bool is_ours = card.find("trained with qlora.cpp") < begin;
  return is_ours && begin != std::string::npos ? card.substr(begin) : "";
}

}  // namespace

std::string origin_facts(const std::vector<std::string>& directories,
                         const std::optional<lora::CombineOptions>& combination) {
  if (directories.empty()) return "";
  std::string text = "## Made from\n\n";
  if (!combination)
    return text +
           fmt::format("It was made from the adapter {}.\n",
                       exporting::code_span(adapter_name(directories.front()))) +
           sections_of_card(directories.front());
  text += fmt::format("These adapters were combined by `{}`:\n\n", combination->method);
  for (size_t i = 0; i < directories.size(); ++i)
    text += fmt::format("- {}, weight {}\n", exporting::code_span(adapter_name(directories[i])),
                        combination->weights.at(i));
  return text;
}

std::string training_facts(const Recipe& recipe, const std::string& compute_dtype,
                           std::optional<int64_t> last_step) {
  if (recipe.data.train.empty()) return "";
  return data_section(recipe) + settings_section(recipe, compute_dtype) +
         figures_section(figures_of(recipe.output.dir, last_step));
}

}  // namespace qlora::recipes
