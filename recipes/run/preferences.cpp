#include "recipes/run/preferences.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/stopwatch.h"
#include "io/atomic_write.h"
#include "io/json.h"
#include "io/json_text.h"
#include "lora/weight_init.h"
#include "recipes/given_adapter.h"
#include "recipes/run_files/run_names.h"
#include "trainer/preference_evaluation.h"
#include "trainer/preference_objective.h"

namespace qlora::recipes {
namespace {

constexpr int64_t kFormatVersion = 1;

// The rows of one list and their log-probabilities.
nlohmann::ordered_json part_of(const data::Examples& examples,
                               const std::vector<double>& log_probs) {
  return {{"rows", data::examples_fingerprint(examples)}, {"log_probs", log_probs}};
}

// Nothing if they are of other rows.
std::optional<std::vector<double>> log_probs_from(const io::JsonNode& part,
                                                  const data::Examples& examples) {
  if (part.at("rows").as_string() != data::examples_fingerprint(examples)) return std::nullopt;
  std::vector<double> log_probs;
  for (const io::JsonNode& number : part.at("log_probs").elements())
    log_probs.push_back(number.as_number());
  if (log_probs.size() != examples.size()) return std::nullopt;
  return log_probs;
}

std::optional<Reference> read_reference(const std::string& path, const data::PreparedData& data) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const nlohmann::json json = io::read_json_file(path);
  const io::JsonNode node(json, path);
  node.at("format_version").as_integer(kFormatVersion, kFormatVersion);
  const auto train = log_probs_from(node.at("train"), data.train);
  const auto eval = log_probs_from(node.at("eval"), data.eval);
  if (!train || !eval) return std::nullopt;
  return Reference{*train, *eval};
}

bool knows_the_start(const Recipe& recipe) {
  if (!recipe.lora.from_adapter.empty()) return has_given_adapter(recipe);
  return !lora::init_changes_base(recipe.lora.init);
}

// What the run has written, read by the first rank; nothing if it must be computed again.
std::optional<Reference> reference_of_run(const Recipe& recipe, const RunDirectory& run,
                                          const data::PreparedData& data,
                                          distributed::Group& group) {
  const std::string path = run.file(kReferenceFile);
  std::optional<Reference> known;
  if (group.leads()) {
    known = read_reference(path, data);
    if (!known && !knows_the_start(recipe))
      fail<ConfigError>(
          "{} is missing or of other rows, and where the run began is not known any more ({}); "
          "restore it, or start another run",
          path,
          recipe.lora.from_adapter.empty()
              ? "lora.init " + recipe.lora.init + " moved a part of the base into the adapter"
              : "there is no adapter in " + recipe.lora.from_adapter + ", lora.from_adapter");
    if (!known) log::info("{} is missing or of other rows; the reference is computed again", path);
  }
  if (group.broadcast(std::string(known ? "known" : "")).empty()) return std::nullopt;
  if (!known)
    known =
        Reference{std::vector<double>(data.train.size()), std::vector<double>(data.eval.size())};
  for (std::vector<double>* log_probs : {&known->train, &known->eval})
    group.broadcast(at::from_blob(log_probs->data(), {std::ssize(*log_probs)}, at::kDouble));
  return known;
}

}  // namespace

trainer::PreferenceOptions preference_options(const Recipe& recipe) {
  return {recipe.train.objective, recipe.train.beta, recipe.train.loss_type,
          recipe.train.label_smoothing, recipe.data.train_on == data::TrainOn::kAll};
}

Reference reference_of(const Recipe& recipe, const RunDirectory& run, const BaseModel& base,
                       const data::PreparedData& data, distributed::Group& group) {
  if (recipe.train.objective != "dpo") return {};
  if (run.checkpoint()) {
    if (auto known = reference_of_run(recipe, run, data, group)) return *std::move(known);
  }
  const Stopwatch watch;
  Reference reference{trainer::answer_log_probs(*base.model, data.train, &group),
                      trainer::answer_log_probs(*base.model, data.eval, &group)};
  log::info("reference: log-probabilities of {} pairs by the model before the run ({:.1f} s)",
            (reference.train.size() + reference.eval.size()) / 2, watch.seconds());
  return reference;
}

void save_reference(const RunDirectory& run, const data::PreparedData& data,
                    const Reference& reference) {
  if (reference.train.empty()) return;
  const nlohmann::ordered_json json = {{"format_version", kFormatVersion},
                                       {"train", part_of(data.train, reference.train)},
                                       {"eval", part_of(data.eval, reference.eval)}};
  io::write_file_atomically(run.file(kReferenceFile), io::json_text(json) + "\n");
}

std::unique_ptr<trainer::Objective> objective_of(const Recipe& recipe, const Reference& reference) {
  if (recipe.train.objective == "sft") return trainer::cross_entropy_objective();
  return trainer::preference_objective(preference_options(recipe), reference.train);
}

}  // namespace qlora::recipes
