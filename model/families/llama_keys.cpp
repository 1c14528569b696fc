#include "model/families/llama_keys.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/known_keys.h"

namespace qlora::model {
namespace {

constexpr std::string_view kRead[] = {"model_type",
                                      "vocab_size",
                                      "hidden_size",
                                      "intermediate_size",
                                      "num_hidden_layers",
                                      "num_attention_heads",
                                      "num_key_value_heads",
                                      "head_dim",
                                      "hidden_act",
                                      "rms_norm_eps",
                                      "attention_bias",
                                      "mlp_bias",
                                      "tie_word_embeddings",
                                      "rope_theta",
                                      "rope_scaling",
                                      "rope_parameters",
                                      "partial_rotary_factor",
                                      "max_position_embeddings",
                                      "original_max_position_embeddings",
                                      "quantization_config",
                                      "attention_dropout",
                                      "pruned_heads",

                                      "architectures"};

// How the model was made, is served, or is held in memory; legacy settings of generation.
constexpr std::string_view kHarmless[] = {"_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_commit_hash",
                                          "_flash_attn_2_enabled",
                                          "_name_or_path",
                                          "attn_implementation",
                                          "bad_words_ids",
                                          "begin_suppress_tokens",
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
  if (name.ends_with("ForCausalLM")) return;
  log::warning_once("{}: the weights are of a {}; they are read as those of a language model",
                    architectures->place(), name);
}

// Keys after "llama." that are read in llama.cpp of this folder, or below.
constexpr std::string_view kGgufRead[] = {"embedding_length",
                                          "feed_forward_length",
                                          "block_count",
                                          "attention.head_count",
                                          "attention.head_count_kv",
                                          "attention.key_length",
                                          "attention.value_length",
                                          "context_length",
                                          "attention.layer_norm_rms_epsilon",
                                          "expert_count",
                                          "expert_used_count",
                                          "rope.freq_base",
                                          "rope.scaling.type",
                                          "rope.scaling.factor",
                                          "rope.scale_linear",
                                          "rope.dimension_count",
                                          "vocab_size"};

// Of linear scaling and of none they are notes.
constexpr std::string_view kGgufHarmless[] = {"rope.scaling.original_context_length",
                                              "rope.scaling.finetuned", "tensor_data_layout",
                                              "attention.causal"};

void require_equal(const io::GgufFile& file, const std::string& key, int64_t wanted,
                   const char* what) {
  if (!file.has(key)) return;
  const int64_t found = file.integer(key, 0, int64_t{1} << 31);
  if (found != wanted)
    fail<FormatError>("{}: {} is {}, and {} is {}; this version computes equal ones only",
                      file.path(), key, found, what, wanted);
}

}  // namespace

void check_llama_keys(const io::JsonNode& config) {
  for (const std::string_view name : kOnlyFalse)
    if (const auto node = config.find(std::string(name)); node && node->as_bool())
      node->reject("false: this version does not have it");
  if (const auto heads = config.find("pruned_heads"); heads && !heads->value().empty())
    heads->reject("empty: this version computes all heads");
  if (const auto dropout = config.find("attention_dropout"); dropout && dropout->as_number() != 0)
    log::warning_once("{} is {}; attention is trained without dropout here", dropout->place(),
                      dropout->as_number());
  require_causal_lm(config);
  io::warn_of_other_keys(config, {kRead, kHarmless, kOnlyFalse});
}

void check_llama_keys(const io::GgufFile& file, const ModelConfig& config) {
  const std::string prefix = file.text("general.architecture") + ".";
  if (const std::string type = file.text_or("general.type", "model"); type != "model")
    fail<FormatError>("{}: general.type is '{}'; a model is wanted here", file.path(), type);
  require_equal(file, prefix + "rope.dimension_count", config.head_dim, "the size of a head");
  require_equal(file, prefix + "attention.value_length", config.head_dim,
                "the size of a key's head");
  const int64_t vocab = file.integer_or(prefix + "vocab_size", 1, 1 << 30, config.vocab_size);
  if (vocab != config.vocab_size)
    log::warning_once(
        "{}: {}vocab_size is {}, but token_embd.weight has {} rows; the rows are used", file.path(),
        prefix, vocab, config.vocab_size);
  if (!file.boolean_or(prefix + "attention.causal", true))
    fail<FormatError>("{}: {}attention.causal is false; only causal attention is computed here",
                      file.path(), prefix);
  std::vector<std::string> others;
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(prefix)) continue;
    const std::string_view name = std::string_view(key).substr(prefix.size());
    if (std::ranges::find(kGgufRead, name) == std::end(kGgufRead) &&
        std::ranges::find(kGgufHarmless, name) == std::end(kGgufHarmless))
      others.push_back(key);
  }
  if (!others.empty())
    log::warning_once("{}: metadata that this version neither reads nor knows: {}", file.path(),
                      fmt::join(others, ", "));
}

}  // namespace qlora::model
