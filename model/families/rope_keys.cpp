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

constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";
constexpr const char* kOriginalPositions = "original_max_position_embeddings";

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

Said said_by(const io::JsonNode& config, const io::JsonNode& dictionary,
             const RopeDefaults& defaults) {
  Said said;
  for (const auto& [key, value] : dictionary.value().items())
    if (!value.is_null()) said[key] = value;
  if (const auto type = said.extract("type"); !type.empty())
    said.try_emplace("rope_type", type.mapped());
  said.try_emplace("rope_type", "default");
  const auto theta = config.find(defaults.theta_key);
  said.try_emplace("rope_theta", theta ? theta->value() : nlohmann::json(defaults.theta));
  return said;
}

void warn_of_disagreement(const io::JsonNode& config, const io::JsonNode& scaling,
                          const io::JsonNode& parameters, const RopeDefaults& defaults) {
  if (said_by(config, scaling, defaults) == said_by(config, parameters, defaults)) return;
  log::warning_once(
      "{}: rope_scaling {} and rope_parameters {} disagree; rope_scaling is used, as transformers "
      "does",
      config.place(), io::json_text(scaling.value()), io::json_text(parameters.value()));
}

// The number `key` within the dictionary, else `beside_key` beside it, else `otherwise`.
double within_or_beside(const io::JsonNode& config, const std::optional<io::JsonNode>& dictionary,
                        const std::string& key, const std::string& beside_key, double otherwise) {
  const auto beside = config.find(beside_key);
  const auto within = dictionary ? dictionary->find(key) : std::nullopt;
  if (!within) return beside ? beside->as_number() : otherwise;
  const double number = within->as_number();
  if (beside && beside->as_number() != number)
    log::warning_once("{} is {} and {} is {}; the former is used, as transformers does",
                      within->place(), number, beside->place(), beside->as_number());
  return number;
}

std::string read_type(const io::JsonNode& dictionary) {
  const auto type = dictionary.find("rope_type"), old = dictionary.find("type");
  if (type && old && type->as_string() != old->as_string())
    log::warning_once("{} is '{}' and {} is '{}'; the former is used, as transformers does",
                      type->place(), type->as_string(), old->place(), old->as_string());
  if (type) return type->as_string();
  return old ? old->as_string() : "default";
}

double positive(const io::JsonNode& node) {
  const double number = node.as_number();
  if (!(number > 0)) node.reject("a number above 0");
  return number;
}

// The context before scaling. Beside the dictionary it goes first.
double read_original_positions(const io::JsonNode& config, const io::JsonNode& dictionary,
                               int64_t max_positions) {
  const auto beside = config.find(kOriginalPositions), within = dictionary.find(kOriginalPositions);
  if (beside && within && beside->as_number() != within->as_number())
    log::warning_once("{} is {} and {} is {}; the former is used, as transformers does",
                      beside->place(), beside->as_number(), within->place(), within->as_number());
  if (beside) return positive(*beside);
  return within ? positive(*within) : static_cast<double>(max_positions);
}

double positive_or(const io::JsonNode& dictionary, const char* key, double otherwise) {
  const auto node = dictionary.find(key);
  return node ? positive(*node) : otherwise;
}

double number_or(const io::JsonNode& dictionary, const char* key, double otherwise) {
  const auto node = dictionary.find(key);
  return node ? node->as_number() : otherwise;
}

std::vector<float> read_factors(const io::JsonNode& list, int64_t width) {
  std::vector<float> factors;
  for (const io::JsonNode& element : list.elements())
    factors.push_back(static_cast<float>(positive(element)));
  if (static_cast<int64_t>(factors.size()) != width / 2)
    list.reject(fmt::format("a list of {} numbers, one for each frequency", width / 2));
  return factors;
}

std::set<std::string> keys_of(const std::string& type) {
  std::set<std::string> keys = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  if (type != "default") keys.insert("factor");
  if (type == "llama3") keys.insert({"low_freq_factor", "high_freq_factor"});
  if (type == "yarn")
    keys.insert({"beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"});
  if (type == "longrope") keys.insert({"short_factor", "long_factor"});
  if (type == "yarn" || type == "longrope") keys.insert("attention_factor");
  if (type == "llama3" || type == "yarn" || type == "longrope") keys.insert(kOriginalPositions);
  return keys;
}

void warn_of_unread(const io::JsonNode& dictionary, const std::string& type,
                    const RopeDefaults& defaults) {
  std::set<std::string> read = keys_of(type);
  read.insert(defaults.read_elsewhere.begin(), defaults.read_elsewhere.end());
  for (const auto& [key, value] : dictionary.value().items())
    if (!value.is_null() && !read.contains(key))
      log::warning_once("{}.{} is not read: it is no key of rope_type '{}'", dictionary.place(),
                        key, type);
}

// The key that says how much of a head turns, for complaints.
io::JsonNode partial_key(const io::JsonNode& config, const std::optional<io::JsonNode>& dictionary,
                         const RopeDefaults& defaults) {
  const auto within = dictionary ? dictionary->find("partial_rotary_factor") : std::nullopt;
  if (within) return *within;
  return config.find(defaults.partial_key).value_or(config);
}

int64_t read_width(const io::JsonNode& config, const std::optional<io::JsonNode>& dictionary,
                   const RopeSizes& sizes, const RopeDefaults& defaults) {
  const double factor = within_or_beside(config, dictionary, "partial_rotary_factor",
                                         defaults.partial_key, defaults.partial_factor);
  if (defaults.whole_heads) {
    if (factor != 1)
      partial_key(config, dictionary, defaults).reject("1 (a rotary embedding of whole heads)");
    return sizes.head_dim;
  }
  const double wanted = static_cast<double>(sizes.head_dim) * factor;
  const bool is_part = wanted >= 2 && factor <= 1;
  const int64_t width = is_part ? static_cast<int64_t>(wanted) : 0;
  if (!is_part || width % 2 != 0)
    partial_key(config, dictionary, defaults)
        .reject(fmt::format("a part of a head's {} elements that is an even number of them",
                            sizes.head_dim));
  return width;
}

std::string read_known_type(const io::JsonNode& dictionary, const RopeDefaults& defaults) {
  const std::string type = read_type(dictionary);
  if (type == "su" || (type == "yarn" && defaults.yarn_is_longrope)) return "longrope";
  for (const char* known : {"default", "linear", "dynamic", "llama3", "yarn", "longrope"})
    if (type == known) return type;
  fail<FormatError>(
      "{}: RoPE scaling '{}' is not supported; this version knows default, linear, dynamic, "
      "llama3, yarn and longrope",
      dictionary.place(), type);
}

void read_yarn(const io::JsonNode& dictionary, RopeConfig& rope) {
  rope.beta_fast = positive_or(dictionary, "beta_fast", rope.beta_fast);
  rope.beta_slow = positive_or(dictionary, "beta_slow", rope.beta_slow);
  rope.truncate = dictionary.bool_or("truncate", rope.truncate);
  rope.attention_factor =
      positive_or(dictionary, "attention_factor",
                  yarn_attention_factor(rope.factor, number_or(dictionary, "mscale", 0),
                                        number_or(dictionary, "mscale_all_dim", 0)));
}

void read_longrope(const io::JsonNode& dictionary, int64_t width, RopeConfig& rope) {
  rope.short_factor = read_factors(dictionary.at("short_factor"), width);
  rope.long_factor = read_factors(dictionary.at("long_factor"), width);
  rope.attention_factor =
      positive_or(dictionary, "attention_factor",
                  longrope_attention_factor(rope.factor, rope.original_max_positions));
}

void read_scaling(const io::JsonNode& config, const io::JsonNode& dictionary,
                  const RopeSizes& sizes, int64_t width, RopeConfig& rope) {
  if (rope.type == "dynamic")
    rope.original_max_positions = static_cast<double>(sizes.max_positions);
  else if (rope.type != "linear")
    rope.original_max_positions = read_original_positions(config, dictionary, sizes.max_positions);
  if (rope.type == "yarn" || rope.type == "longrope")
    rope.factor =
        positive_or(dictionary, "factor",
                    static_cast<double>(sizes.max_positions) / rope.original_max_positions);
  else
    rope.factor = positive(dictionary.at("factor"));
  if (rope.type == "llama3") {
    rope.low_freq_factor = positive(dictionary.at("low_freq_factor"));
    rope.high_freq_factor = positive(dictionary.at("high_freq_factor"));
  }
  if (rope.type == "yarn") read_yarn(dictionary, rope);
  if (rope.type == "longrope") read_longrope(dictionary, width, rope);
}

RotarySpec read_dictionary(const io::JsonNode& config,
                           const std::optional<io::JsonNode>& dictionary, const RopeSizes& sizes,
                           const RopeDefaults& defaults) {
  RotarySpec spec{{}, read_width(config, dictionary, sizes, defaults), defaults.pairs};
  spec.rope.theta =
      within_or_beside(config, dictionary, "rope_theta", defaults.theta_key, defaults.theta);
  if (!dictionary) return spec;
  spec.rope.type = read_known_type(*dictionary, defaults);
  warn_of_unread(*dictionary, spec.rope.type, defaults);
  if (spec.rope.type != "default") read_scaling(config, *dictionary, sizes, spec.width, spec.rope);
  validate(spec, dictionary->place());
  return spec;
}

bool is_by_layer(const io::JsonNode& parameters) {
  return parameters.find(kFull) || parameters.find(kSliding);
}

// The dictionaries of rope_parameters by layer type.
struct ByLayer {
  std::optional<io::JsonNode> full, sliding;
};

ByLayer parameters_by_layer(const io::JsonNode& config) {
  const auto parameters = filled(config, "rope_parameters");
  if (!parameters) return {};
  for (const auto& [key, value] : parameters->value().items())
    if (key != kFull && key != kSliding)
      fail<FormatError>("{}.{}: in this family every key must be a type of layer, {} or {}",
                        parameters->place(), key, kFull, kSliding);
  return {filled(*parameters, kFull), filled(*parameters, kSliding)};
}

}  // namespace

RotarySpec read_rope_keys(const io::JsonNode& config, const RopeSizes& sizes,
                          const RopeDefaults& defaults) {
  const auto scaling = filled(config, "rope_scaling"),
             parameters = filled(config, "rope_parameters");
  if (parameters && is_by_layer(*parameters))
    parameters->reject("one set of parameters for all layers");
  if (scaling && parameters) warn_of_disagreement(config, *scaling, *parameters, defaults);
  if (scaling || parameters || defaults.when_absent.empty())
    return read_dictionary(config, scaling ? scaling : parameters, sizes, defaults);
  const nlohmann::json absent = nlohmann::json::parse(defaults.when_absent);
  return read_dictionary(config, io::JsonNode(absent, config.place() + ".rope_parameters"), sizes,
                         defaults);
}

double rope_number(const io::JsonNode& config, const RopeDefaults& defaults, const char* key,
                   double otherwise) {
  for (const char* name : {"rope_scaling", "rope_parameters"})
    if (const auto dictionary = filled(config, name)) return number_or(*dictionary, key, otherwise);
  if (defaults.when_absent.empty()) return otherwise;
  return nlohmann::json::parse(defaults.when_absent).value(key, otherwise);
}

LayerRotaries read_layer_rope_keys(const io::JsonNode& config, const RopeSizes& sizes,
                                   const RopeDefaults& full, const RopeDefaults& sliding) {
  const auto scaling = filled(config, "rope_scaling");
  const ByLayer parameters = parameters_by_layer(config);
  nlohmann::json updated;  // transformers lays rope_scaling over the parameters of full layers
  std::optional<io::JsonNode> full_dictionary = scaling ? scaling : parameters.full;
  if (scaling && parameters.full) {
    warn_of_disagreement(config, *scaling, *parameters.full, full);
    updated = parameters.full->value();
    updated.update(scaling->value());
    full_dictionary.emplace(updated, scaling->place());
  }
  return {read_dictionary(config, full_dictionary, sizes, full),
          read_dictionary(config, parameters.sliding, sizes, sliding)};
}

}  // namespace qlora::model
