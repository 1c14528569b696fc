#include "recipes/report/run_facts.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/progress.h"
#include "io/json.h"
#include "lora/adapter_file.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kVerification = "verification.json";

void add(Json& list, const std::string& label, const std::string& text) {
  if (!text.empty()) list.push_back(Json::array({label, text}));
}

double sum_of(const std::vector<double>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

std::string file_names(const std::vector<data::DatasetOptions>& datasets) {
  std::string text;
  for (const data::DatasetOptions& dataset : datasets)
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ",
                        fs::path(dataset.path).filename().string(), dataset.format);
  return text;
}

void add_settings(const Recipe& recipe, Json& facts) {
  const lora::LoraOptions& lora = recipe.lora;
  const trainer::TrainOptions& train = recipe.train;
  add(facts, "base model", recipe.model.path);
  add(facts, "base weights", recipe.quantization.to_text());
  add(facts, "adapters",
      fmt::format("rank {}, alpha {}, dropout {}, on {}, init {}", lora.rank, lora.alpha,
                  lora.dropout, fmt::join(lora.targets, ", "), lora.init));
  add(facts, "objective", train.objective);
  add(facts, "optimizer",
      fmt::format("{}, lr {:g}, {}", recipe.optim.name, recipe.optim.lr, recipe.optim.schedule));
  add(facts, "trained on", file_names(recipe.data.train));
  if (recipe.data.eval_fraction > 0)
    add(facts, "evaluated on",
        fmt::format("{:.3g} % of the rows", 100 * recipe.data.eval_fraction));
  else
    add(facts, "evaluated on", file_names(recipe.data.eval));
  add(facts, "a step",
      fmt::format("{} x {} sequences of up to {} tokens{}", train.gradient_accumulation_steps,
                  train.micro_batch_size, recipe.data.sequence_length,
                  recipe.data.packing ? ", packed" : ""));
  add(facts, "seed", std::to_string(train.seed));
}

void add_figures(const MetricsColumns& metrics, Json& facts) {
  const std::vector<double> steps = numbers_of(metrics.steps, "step"),
                            losses = numbers_of(metrics.steps, "loss"),
                            seconds = numbers_of(metrics.steps, "step_seconds");
  if (steps.empty()) return;
  const double tokens = sum_of(numbers_of(metrics.steps, "tokens")),
               supervised = sum_of(numbers_of(metrics.steps, "supervised_tokens"));
  std::string length = fmt::format("{:.0f}", steps.back());
  if (const auto epochs = numbers_of(metrics.steps, "epoch"); !epochs.empty())
    length += fmt::format(" ({:.2f} epochs)", epochs.back());
  add(facts, "steps", length);
  if (tokens > 0)
    add(facts, "tokens",
        fmt::format("{:.0f}, {:.1f} % of them trained", tokens, 100 * supervised / tokens));
  if (!seconds.empty()) {
    add(facts, "time in steps", clock_text(sum_of(seconds)));
    add(facts, "tokens/s", fmt::format("{:.0f}", tokens / sum_of(seconds)));
  }
  if (!losses.empty())
    add(facts, "loss",
        fmt::format("{:.4f} in the first step, {:.4f} in the last", losses.front(), losses.back()));
}

void add_evaluations(const MetricsColumns& metrics, Json& facts) {
  const std::vector<double> losses = numbers_of(metrics.evaluations, "eval_loss"),
                            steps = numbers_of(metrics.evaluations, "step");
  if (losses.empty() || losses.size() != steps.size()) return;
  const auto best = std::ranges::min_element(losses) - losses.begin();
  add(facts, "evaluation loss",
      fmt::format("{:.4f} at the end (perplexity {:.3f}), {:.4f} at best (step {:.0f})",
                  losses.back(), std::exp(losses.back()), losses[static_cast<size_t>(best)],
                  steps[static_cast<size_t>(best)]));
  if (const auto accuracy = numbers_of(metrics.evaluations, "eval_rewards_accuracy");
      !accuracy.empty())
    add(facts, "evaluation accuracy",
        fmt::format("{:.0f} % of the pairs at the end", 100 * accuracy.back()));
}

std::string export_result(const std::string& path) {
  const nlohmann::json json = io::read_json_file(path);
  const io::JsonNode node(json, path);
  std::string text = fmt::format(
      "top-1 agreement {:.2f} % of {} tokens, KL {:.2e} nats a token to the trained model",
      100 * node.at("top1_agreement").as_number(),
      static_cast<int64_t>(node.at("tokens").as_number()), node.at("kl_mean").as_number());
  if (const std::string base = node.string_or("merge_base", ""); !base.empty())
    text += fmt::format("; merged into {} weights, {}", base, node.string_or("dtype", ""));
  return text;
}

// The base that the adapter of a run or checkpoint records; empty if none does.
std::string base_hash_in(const fs::path& adapter) {
  if (!fs::exists(adapter)) return "";
  const auto base = lora::read_adapter_base(adapter.string());
  return base ? base->hash : "";
}

void add_base(const std::string& run_dir, Json& checks) {
  std::vector<std::string> hashes, places;
  const auto look = [&](const std::string& place, const std::string& hash) {
    if (hash.empty()) return;
    hashes.push_back(hash);
    places.push_back(place);
  };
  look("adapter", base_hash_in(fs::path(run_dir) / "adapter"));
  for (const int64_t step : trainer::checkpoint_steps(run_dir)) {
    const std::string name = trainer::checkpoint_name(step);
    try {
      trainer::verify_checkpoint((fs::path(run_dir) / name).string(), trainer::Look::kAdapter);
      look(name, trainer::read_train_state((fs::path(run_dir) / name).string()).base_hash);
      add(checks, name, "whole (of the optimizer's state, the size)");
    } catch (const Error& error) {
      add(checks, name, error.what());
    }
  }
  if (hashes.empty()) return;
  const bool same = std::ranges::count(hashes, hashes.front()) == std::ssize(hashes);
  add(checks, "base",
      same ? fmt::format("{}, the same in {}", hashes.front(), fmt::join(places, ", "))
           : fmt::format("{} in {}, which are not all the same", fmt::join(hashes, ", "),
                         fmt::join(places, ", ")));
}

}  // namespace

Json run_facts(const Recipe& recipe, const MetricsColumns& metrics,
               const std::optional<trainer::TrainState>& state) {
  Json facts = Json::array();
  add_settings(recipe, facts);
  add_figures(metrics, facts);
  add_evaluations(metrics, facts);
  if (state)
    add(facts, "machine",
        fmt::format("{}, {} threads, {}, products in {}", state->choices.device,
                    state->choices.threads, state->choices.instruction_set,
                    state->choices.compute_dtype));
  return facts;
}

Json run_checks(const std::string& run_dir, const std::vector<std::string>& directories) {
  Json checks = Json::array();
  add_base(run_dir, checks);
  for (const fs::directory_entry& entry : fs::directory_iterator(run_dir))
    if (fs::exists(entry.path() / kVerification))
      add(checks, "export " + entry.path().filename().string(),
          export_result((entry.path() / kVerification).string()));
  for (const std::string& directory : directories) {
    const fs::path path = fs::path(directory) / kVerification;
    if (!fs::exists(path))
      fail<ConfigError>("--export: {} holds no {}; name a directory that qlora export wrote",
                        directory, kVerification);
    add(checks, "export " + directory, export_result(path.string()));
  }
  return checks;
}

}  // namespace qlora::recipes
