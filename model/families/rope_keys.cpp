#include "model/families/rope_keys.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/json_text.h"

namespace qlora::model {
namespace {

constexpr double kDefaultTheta = 10000.0;

// What a dictionary says with the defaults filled in, so that two can be compared.
using Said = std::map<std::string, nlohmann::json>;

// A dictionary with something in it.
std::optional<io::JsonNode> filled(const io::JsonNode& config, const char* key) {
  const auto node = config.find(key);
  if (!node) return std::nullopt;
  if (!node->value().is_object()) node->reject("an object");
  if (node->value().empty()) return std::nullopt;
  return node;
}

Said said_by(const io::JsonNode& config, const io::JsonNode& dictionary) {
  Said said;
  for (const auto& [key, value] : dictionary.value().items())
    if (!value.is_null()) said[key] = value;
  if (const auto type = said.extract("type"); !type.empty())
    said.try_emplace("rope_type", type.mapped());
  said.try_emplace("rope_type", "default");
  const auto theta = config.find("rope_theta");
  said.try_emplace("rope_theta", theta ? theta->value() : nlohmann::json(kDefaultTheta));
  return said;
}

void warn_of_disagreement(const io::JsonNode& config, const io::JsonNode& scaling,
                          const io::JsonNode& parameters) {
  if (said_by(config, scaling) == said_by(config, parameters)) return;
  log::warning_once(
      "{}: rope_scaling {} and rope_parameters {} disagree; rope_scaling is used, as transformers "
      "does",
      config.place(), io::json_text(scaling.value()), io::json_text(parameters.value()));
}

double read_theta(const io::JsonNode& config, const std::optional<io::JsonNode>& dictionary) {
  const auto beside = config.find("rope_theta");
  const auto within = dictionary ? dictionary->find("rope_theta") : std::nullopt;
  if (!within) return beside ? beside->as_number() : kDefaultTheta;
  const double theta = within->as_number();
  if (beside && beside->as_number() != theta)
    log::warning_once("{} is {} and {} is {}; the former is used, as transformers does",
                      within->place(), theta, beside->place(), beside->as_number());
  return theta;
}

std::string read_type(const io::JsonNode& dictionary) {
  const auto type = dictionary.find("rope_type"), old = dictionary.find("type");
  if (type && old && type->as_string() != old->as_string())
    log::warning_once("{} is '{}' and {} is '{}'; the former is used, as transformers does",
                      type->place(), type->as_string(), old->place(), old->as_string());
  if (type) return type->as_string();
  return old ? old->as_string() : "default";
}

// Llama 3's context before scaling. Beside the dictionary it goes first.
double read_original_positions(const io::JsonNode& config, const io::JsonNode& dictionary,
                               int64_t max_positions) {
  constexpr const char* kKey = "original_max_position_embeddings";
  const auto beside = config.find(kKey), within = dictionary.find(kKey);
  if (beside && within && beside->as_number() != within->as_number())
    log::warning_once("{} is {} and {} is {}; the former is used, as transformers does",
                      beside->place(), beside->as_number(), within->place(), within->as_number());
  if (beside) return beside->as_number();
  return within ? within->as_number() : static_cast<double>(max_positions);
}

double read_positive(const io::JsonNode& dictionary, const char* key) {
  const io::JsonNode node = dictionary.at(key);
  const double number = node.as_number();
  if (!(number > 0)) node.reject("a number above 0");
  return number;
}

void warn_of_unread(const io::JsonNode& dictionary, const std::string& type) {
  std::set<std::string> read = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  if (type != "default") read.insert("factor");
  if (type == "llama3")
    read.insert({"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
  for (const auto& [key, value] : dictionary.value().items())
    if (!value.is_null() && !read.contains(key))
      log::warning_once("{}.{} is not read: it is no key of rope_type '{}'", dictionary.place(),
                        key, type);
}

void require_whole_heads(const io::JsonNode& node) {
  if (const auto partial = node.find("partial_rotary_factor"); partial && partial->as_number() != 1)
    partial->reject("1 (a rotary embedding of whole heads)");
}

}  // namespace

RopeConfig read_rope_keys(const io::JsonNode& config, int64_t max_positions) {
  const auto scaling = filled(config, "rope_scaling"),
             parameters = filled(config, "rope_parameters");
  if (scaling && parameters) warn_of_disagreement(config, *scaling, *parameters);
  const auto& chosen = scaling ? scaling : parameters;
  require_whole_heads(config);
  RopeConfig rope;
  rope.theta = read_theta(config, chosen);
  if (!chosen) return rope;
  require_whole_heads(*chosen);
  rope.type = read_type(*chosen);
  if (rope.type != "default" && rope.type != "linear" && rope.type != "llama3") {
    fail<FormatError>(
        "{}: RoPE scaling '{}' is not supported; this version knows default, linear and llama3",
        chosen->place(), rope.type);
  }
  warn_of_unread(*chosen, rope.type);
  if (rope.type == "default") return rope;
  rope.factor = read_positive(*chosen, "factor");
  if (rope.type == "llama3") {
    rope.low_freq_factor = read_positive(*chosen, "low_freq_factor");
    rope.high_freq_factor = read_positive(*chosen, "high_freq_factor");
    rope.original_max_positions = read_original_positions(config, *chosen, max_positions);
  }
  return rope;
}

}  // namespace qlora::model
