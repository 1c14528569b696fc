#include "trainer/train_state_json.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "io/json_text.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// Whether all layers are recomputed, or how many.
nlohmann::json json_of(const model::RecomputedLayers& layers) {
  if (layers.all() || !layers.any()) return layers.all();
  return layers.count(kMost);
}

model::RecomputedLayers recomputed_layers_from(const io::JsonNode& node) {
  if (node.value().is_boolean()) return node.as_bool();
  return model::RecomputedLayers::first(node.as_integer(1, kMost - 1));
}

}  // namespace

std::string to_json(const TrainState& state) {
  const auto finite = [](double x) {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
  };
  const nlohmann::json recomputed = json_of(state.choices.recompute_layers);
  const nlohmann::ordered_json json = {
      {"format_version", kFormatVersion},
      {"step", state.step},
      {"horizon", state.horizon},
      {"epoch", state.position.epoch},
      {"step_in_epoch", state.position.step_in_epoch},
      {"tokens", state.tokens},
      {"supervised_tokens", state.supervised_tokens},
      {"best_eval_loss", finite(state.best_eval_loss)},
      {"best_step", state.best_step},
      {"stale_evaluations", state.stale_evaluations},
      {"evaluation_due", state.evaluation_due},
      {"loss_scale", state.loss_scale.value},
      {"loss_scale_good_steps", state.loss_scale.good_steps},
      {"first_loss", finite(state.losses.first.value_or(std::numeric_limits<double>::infinity()))},
      {"losses_above", state.losses.above},
      {"plateau_factor", state.plateau.factor},
      {"plateau_best", finite(state.plateau.best)},
      {"plateau_stale", state.plateau.stale},
      {"optimizer_steps", state.optimizer_steps},
      {"base_hash", state.base_hash},
      {"data_fingerprint", state.data_fingerprint},
      {"first_examples", state.first_examples},
      {"choices",
       {{"threads", state.choices.threads},
        {"instruction_set", state.choices.instruction_set},
        {"device", state.choices.device},
        {"compute_dtype", state.choices.compute_dtype},
        {"model_dtype", state.choices.model_dtype},
        {"narrow_gates", state.choices.narrow_gates},
        {"recompute_layers", recomputed}}}};
  return io::json_text(json, 2) + "\n";
}

TrainState train_state_from_json(const io::JsonNode& node) {
  node.at("format_version").as_integer(kFormatVersion, kFormatVersion);
  TrainState state;
  const auto count = [&](const char* key) { return node.at(key).as_integer(0, kMost); };
  state.step = count("step");
  state.horizon = count("horizon");
  state.position = {count("epoch"), count("step_in_epoch")};
  state.tokens = count("tokens");
  state.supervised_tokens = count("supervised_tokens");
  if (const auto best = node.find("best_eval_loss")) state.best_eval_loss = best->as_number();
  state.best_step = node.at("best_step").as_integer(-1, kMost);
  if (const auto stale = node.find("stale_evaluations"))
    state.stale_evaluations = stale->as_integer(0, kMost);
  if (const auto due = node.find("evaluation_due")) state.evaluation_due = due->as_bool();
  if (const auto scale = node.find("loss_scale")) {
    state.loss_scale.value = scale->as_number();
    state.loss_scale.good_steps = count("loss_scale_good_steps");
  }
  if (const auto first = node.find("first_loss")) {
    state.losses.first = first->as_number();
    state.losses.above = count("losses_above");
  }
  if (const auto factor = node.find("plateau_factor")) {
    state.plateau.factor = factor->as_number();
    state.plateau.stale = count("plateau_stale");
    if (const auto best = node.find("plateau_best")) state.plateau.best = best->as_number();
  }
  state.optimizer_steps = count("optimizer_steps");
  state.base_hash = node.at("base_hash").as_string();
  state.data_fingerprint = node.at("data_fingerprint").as_string();
  if (const auto first = node.find("first_examples"))
    state.first_examples = first->as_integer(0, kMost);
  const io::JsonNode choices = node.at("choices");
  state.choices.threads = static_cast<int>(choices.at("threads").as_integer(0, 1 << 16));
  state.choices.instruction_set = choices.at("instruction_set").as_string();
  state.choices.device = choices.at("device").as_string();
  state.choices.compute_dtype = choices.string_or("compute_dtype", "");
  state.choices.model_dtype = choices.string_or("model_dtype", "");
  state.choices.narrow_gates = choices.bool_or("narrow_gates", false);
  state.choices.recompute_layers = recomputed_layers_from(choices.at("recompute_layers"));
  return state;
}

}  // namespace qlora::trainer
