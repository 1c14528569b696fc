#include "data/tokenizers/config_keys.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/warn_once.h"
#include "io/known_keys.h"

namespace qlora::data {
namespace {

constexpr std::string_view kRead[] = {"tokenizer_class",
                                      "add_bos_token",
                                      "add_eos_token",
                                      "add_prefix_space",
                                      "legacy",
                                      "bos_token",
                                      "eos_token",
                                      "unk_token",
                                      "pad_token",
                                      "cls_token",
                                      "sep_token",
                                      "mask_token",
                                      "additional_special_tokens",
                                      "extra_special_tokens",
                                      "added_tokens_decoder",
                                      "chat_template"};

// Of padding and truncation, which the program does itself; of decoding for display; of where the
// tokenizer came from; names of tokens that are in added_tokens_decoder.
constexpr std::string_view kHarmless[] = {"model_max_length",
                                          "max_length",
                                          "max_len",
                                          "padding_side",
                                          "truncation_side",
                                          "padding",
                                          "truncation",
                                          "truncation_strategy",
                                          "stride",
                                          "pad_to_multiple_of",
                                          "pad_token_type_id",
                                          "model_input_names",
                                          "clean_up_tokenization_spaces",
                                          "spaces_between_special_tokens",
                                          "tokenizer_file",
                                          "vocab_file",
                                          "merges_file",
                                          "special_tokens_map_file",
                                          "name_or_path",
                                          "processor_class",
                                          "auto_map",
                                          "backend",
                                          "is_local",
                                          "local_files_only",
                                          "use_fast",
                                          "from_slow",
                                          "init_inputs",
                                          "errors",
                                          "verbose",
                                          "device_map",
                                          "trust_remote_code",
                                          "revision",
                                          "use_default_system_prompt",
                                          "response_template",
                                          "response_schema",
                                          "model_type",
                                          "extra_ids",
                                          "unk_id",
                                          "model_specific_special_tokens",
                                          "trim_offsets",
                                          "return_token_type_ids",
                                          "bos_token_id",
                                          "eos_token_id",
                                          "pad_token_id",
                                          "unk_token_id"};

// Have one value, below.
constexpr std::string_view kChecked[] = {"split_special_tokens", "do_lower_case",
                                         "sp_model_kwargs"};

}  // namespace

void check_tokenizer_config_keys(const io::JsonNode& config) {
  if (config.bool_or("split_special_tokens", false))
    config.at("split_special_tokens")
        .reject("false: special tokens in a text are always single tokens in this version");
  if (config.bool_or("do_lower_case", false))
    log::warning_once("{}.do_lower_case is not read: text keeps its capitals", config.place());
  if (const auto arguments = config.find("sp_model_kwargs"))
    if (const auto sampling = arguments->find("enable_sampling"); sampling && sampling->as_bool())
      log::warning_once("{} is not read: text is always split the same way", sampling->place());
  nlohmann::json unnamed =
      config.value();  // without names of tokens, which added_tokens_decoder has
  std::erase_if(unnamed.get_ref<nlohmann::json::object_t&>(),
                [](const auto& entry) { return entry.first.ends_with("_token"); });
  io::warn_of_other_keys(io::JsonNode(unnamed, config.place()), {kRead, kHarmless, kChecked});
}

}  // namespace qlora::data
