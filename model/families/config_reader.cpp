#include "model/families/config_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/json_text.h"
#include "io/known_keys.h"
#include "model/weight_files.h"

namespace qlora::model {
namespace {

// Keys of a config.json that concern all families.
constexpr std::string_view kAlwaysRead[] = {"model_type",          "architectures",
                                            "quantization_config", "attention_dropout",
                                            "pruned_heads",        kFloat32Beside};

// How the model was made, is served, or is held in memory; legacy settings of generation.
constexpr std::string_view kHarmless[] = {"_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_commit_hash",
                                          "_flash_attn_2_enabled",
                                          "_name_or_path",
                                          "attn_implementation",
                                          "auto_map",
                                          "bad_words_ids",
                                          "begin_suppress_tokens",
                                          "cache_implementation",
                                          "bos_token_id",
                                          "chunk_size_feed_forward",
                                          "cross_attention_hidden_size",
                                          "decoder_start_token_id",
                                          "diversity_penalty",
                                          "do_sample",
                                          "dtype",
                                          "early_stopping",
                                          "encoder_no_repeat_ngram_size",
                                          "eos_token_id",
                                          "exponential_decay_length_penalty",
                                          "finetuning_task",
                                          "forced_bos_token_id",
                                          "forced_eos_token_id",
                                          "gradient_checkpointing",
                                          "id2label",
                                          "initializer_range",
                                          "is_decoder",
                                          "is_llama_config",
                                          "label2id",
                                          "length_penalty",
                                          "max_length",
                                          "max_sequence_length",
                                          "min_length",
                                          "model_max_length",
                                          "neftune_noise_alpha",
                                          "no_repeat_ngram_size",
                                          "num_beam_groups",
                                          "num_beams",
                                          "num_labels",
                                          "num_return_sequences",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_past",
                                          "output_scores",
                                          "pad_token_id",
                                          "prefix",
                                          "pretraining_tp",
                                          "problem_type",
                                          "remove_invalid_values",
                                          "repetition_penalty",
                                          "return_dict",
                                          "return_dict_in_generate",
                                          "sep_token_id",
                                          "suppress_tokens",
                                          "task_specific_params",
                                          "temperature",
                                          "tf_legacy_loss",
                                          "tie_encoder_decoder",
                                          "tokenizer_class",
                                          "tokenizer_name",
                                          "top_k",
                                          "top_p",
                                          "torch_dtype",
                                          "torchscript",
                                          "transformers.js_config",
                                          "transformers_version",
                                          "typical_p",
                                          "unsloth_fixed",
                                          "unsloth_version",
                                          "use_bfloat16",
                                          "use_cache",
                                          "use_flash_attn",
                                          "use_return_dict"};

// False is what they are without the key.
constexpr std::string_view kOnlyFalse[] = {"rope_interleaved", "is_encoder_decoder",
                                           "add_cross_attention"};

void require_causal_lm(const io::JsonNode& config) {
  const auto architectures = config.find("architectures");
  if (!architectures || !architectures->value().is_array() || architectures->value().empty())
    return;
  const std::string name = architectures->elements().front().as_string();
  if (name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel")) return;
  log::warning_once("{}: the weights are of a {}; they are read as those of a language model",
                    architectures->place(), name);
}

// Of linear scaling and of none they are notes.
constexpr std::string_view kGgufHarmless[] = {"rope.scaling.original_context_length",
                                              "rope.scaling.finetuned", "tensor_data_layout"};

// An integer of the metadata, which may be a list with one for each layer if these are the same.
int64_t of_every_layer(const io::GgufFile& file, const std::string& key, int64_t least,
                       int64_t most) {
  const auto found = file.metadata().find(key);
  const bool is_list = found != file.metadata().end() &&
                       (std::holds_alternative<std::vector<int64_t>>(found->second) ||
                        std::holds_alternative<std::vector<uint64_t>>(found->second));
  if (!is_list) return file.integer(key, least, most);
  const std::vector<int64_t> values = file.integers(key);
  const auto other = std::ranges::adjacent_find(values, std::ranges::not_equal_to());
  if (values.empty() || other != values.end() || values[0] < least || values[0] > most)
    fail<FormatError>(
        "{}: the metadata value {} must be an integer from {} to {}, the same for every layer in "
        "this version, found [{}]",
        file.path(), key, least, most, fmt::join(values, ", "));
  return values[0];
}

}  // namespace

ConfigReader::ConfigReader(const io::GgufFile& file)
    : gguf_(&file), place_(file.path()), prefix_(file.text("general.architecture") + ".") {}

std::optional<io::JsonNode> ConfigReader::node(const ConfigKey& key) {
  std::optional<io::JsonNode> found;
  for (const char* spelling : key.hugging_face) {
    read_.insert(spelling);
    const auto other = json_ ? json_->find(spelling) : std::nullopt;
    if (found && other && found->value() != other->value())
      other->reject(fmt::format("what {} is, {}: they are two names of one value", found->place(),
                                io::json_text(found->value())));
    if (!found) found = other;
  }
  return found;
}

bool ConfigReader::in_gguf(const ConfigKey& key) {
  if (!gguf_ || !key.gguf) return false;
  read_.insert(key.gguf);
  return key.needed_in_gguf || gguf_->has(prefix_ + key.gguf);
}

int64_t ConfigReader::integer(const ConfigKey& key, int64_t otherwise, int64_t least,
                              int64_t most) {
  if (in_gguf(key)) return of_every_layer(*gguf_, prefix_ + key.gguf, least, most);
  const auto found = node(key);
  return found ? found->as_integer(least, most) : otherwise;
}

int64_t ConfigReader::size(const ConfigKey& key, int64_t otherwise, int64_t least, int64_t most) {
  if (json_ && !key.hugging_face.empty() && !has(key))
    unsaid_.push_back(fmt::format("{} {}", key.hugging_face.front(), otherwise));
  return integer(key, otherwise, least, most);
}

double ConfigReader::number(const ConfigKey& key, double otherwise) {
  const bool is_gguf = in_gguf(key);
  const auto found = is_gguf ? std::nullopt : node(key);
  const double number = is_gguf ? gguf_->number(prefix_ + key.gguf)
                        : found ? found->as_number()
                                : otherwise;
  if (!std::isfinite(number))
    fail<FormatError>("{} must be a finite number, found {}", place_of(key), number);
  return number;
}

double ConfigReader::positive(const ConfigKey& key, double otherwise) {
  const double scale = number(key, otherwise);
  if (const auto rounded = static_cast<float>(scale); !(rounded > 0 && std::isfinite(rounded)))
    fail<FormatError>("{} must be above 0 and within the range of a float, found {}", place_of(key),
                      scale);
  return scale;
}

double ConfigReader::positive_or_none(const ConfigKey& key) {
  const bool is_none = gguf_ ? number(key, 0) == 0 : !has(key);
  return is_none ? 0 : positive(key, 0);
}

bool ConfigReader::boolean(const ConfigKey& key, bool otherwise) {
  if (in_gguf(key)) return gguf_->boolean(prefix_ + key.gguf);
  const auto found = node(key);
  return found ? found->as_bool() : otherwise;
}

std::string ConfigReader::text(const ConfigKey& key, const std::string& otherwise) {
  if (in_gguf(key)) return gguf_->text(prefix_ + key.gguf);
  const auto found = node(key);
  return found ? found->as_string() : otherwise;
}

std::vector<int64_t> ConfigReader::integers(const ConfigKey& key) {
  return in_gguf(key) ? gguf_->integers(prefix_ + key.gguf) : std::vector<int64_t>();
}

bool ConfigReader::has(const ConfigKey& key) {
  if (gguf_) return key.gguf && gguf_->has(prefix_ + key.gguf);
  return node(key).has_value();
}

bool ConfigReader::is_spelled(const ConfigKey& key) {
  if (gguf_) return has(key);
  return has(key) || std::ranges::any_of(key.hugging_face, [this](const char* spelling) {
           return json_->value().contains(spelling);
         });
}

std::string ConfigReader::place_of(const ConfigKey& key) {
  if (gguf_) return fmt::format("{}: {}{}", place_, prefix_, key.gguf ? key.gguf : "");
  const auto found = node(key);
  return found ? found->place() : fmt::format("{}.{}", place_, key.hugging_face.front());
}

void ConfigReader::note_read(std::initializer_list<const char*> hugging_face,
                             std::initializer_list<const char*> gguf) {
  read_.insert(hugging_face.begin(), hugging_face.end());
  read_.insert(gguf.begin(), gguf.end());
}

void ConfigReader::require(const char* hugging_face, bool only) {
  if (const auto found = node({{hugging_face}}); found && found->as_bool() != only)
    found->reject(fmt::format("{}: this version does not have it otherwise", only));
}

void ConfigReader::require(const char* hugging_face, double only) {
  if (const auto found = node({{hugging_face}}); found && found->as_number() != only)
    found->reject(fmt::format("{}: this version does not have it otherwise", only));
}

void ConfigReader::require(const char* hugging_face, std::initializer_list<const char*> known) {
  const auto found = node({{hugging_face}});
  if (!found) return;
  const std::string said = found->as_string();
  if (std::ranges::none_of(known, [&](const char* name) { return said == name; }))
    found->reject(
        fmt::format("{}: this version does not have it otherwise", fmt::join(known, " or ")));
}

void ConfigReader::note_dropout(std::initializer_list<const char*> hugging_face) {
  note_read(hugging_face);
  if (!json_) return;
  std::vector<std::string> set;
  for (const char* key : hugging_face)
    if (const auto found = json_->find(key); found && found->as_number() != 0)
      set.push_back(fmt::format("{} {}", key, found->as_number()));
  if (!set.empty())
    log::warning_once("{} says {}: the base is trained without dropout here", place_,
                      fmt::join(set, ", "));
}

void ConfigReader::finish() { gguf_ ? finish_gguf() : finish_json(); }

void ConfigReader::finish_json() {
  for (const std::string_view name : kOnlyFalse)
    if (const auto found = json_->find(std::string(name));
        found && found->as_bool() && !read_.contains(std::string(name)))
      found->reject("false: this version does not have it");
  if (const auto heads = json_->find("pruned_heads"); heads && !heads->value().empty())
    heads->reject("empty: this version computes all heads");
  if (const auto dropout = json_->find("attention_dropout"); dropout && dropout->as_number() != 0)
    log::warning_once("{} is {}; attention is trained without dropout here", dropout->place(),
                      dropout->as_number());
  if (!read_.contains("is_encoder_decoder")) require_causal_lm(*json_);
  if (!unsaid_.empty())
    log::warning_once(
        "{} does not say all sizes of the model; this version's usual ones are taken: {}", place_,
        fmt::join(unsaid_, ", "));
  const std::vector<std::string_view> read(read_.begin(), read_.end());
  io::warn_of_other_keys(*json_, {kAlwaysRead, kHarmless, kOnlyFalse, read});
}

void ConfigReader::finish_gguf() {
  if (!boolean({{}, "attention.causal"}, true))
    fail<FormatError>("{}: {}attention.causal is false; only causal attention is computed here",
                      place_, prefix_);
  std::vector<std::string> others;
  for (const auto& [key, value] : gguf_->metadata()) {
    if (!key.starts_with(prefix_)) continue;
    const std::string name = key.substr(prefix_.size());
    if (!read_.contains(name) && std::ranges::find(kGgufHarmless, name) == std::end(kGgufHarmless))
      others.push_back(key);
  }
  if (!others.empty())
    log::warning_once("{}: metadata that this version neither reads nor knows: {}", place_,
                      fmt::join(others, ", "));
}

}  // namespace qlora::model
