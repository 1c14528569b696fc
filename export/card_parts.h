// What the cards of all exports say in the same words.
#pragma once

#include <string>
#include <vector>

#include "lora/adapter_base.h"

namespace qlora::exporting {

// The model that an adapter is for by its hub id, or by the name of its file or directory. Of a
// base that a run wrote, the model that it was made from.
std::string plain_name(const lora::AdapterBase& base);
// The same in Markdown.
std::string shown_name(const lora::AdapterBase& base);

// The YAML at a card's beginning, which the Hugging Face hub reads: with base_model where the hub
// id is known.
std::string front_matter(const std::string& library, const lora::AdapterBase& base,
                         bool has_encoder, const std::vector<std::string>& tags);

// Whether the base was quantized as it was read, by a recipe that names a method.
bool is_quantized_by_training(const quant::QuantizationOptions& quantization);
// How the base was held in training: "The base was not quantized; it was in float32."
std::string quantization_sentence(const lora::AdapterBase& base);

// Whether an adapter holds a part of its base's weights, and acts as it was trained on that base
// alone; also where it is not known which initialisation took them.
bool holds_part_of(const lora::AdapterBase& base);
// What is to be said of such an adapter: which base it needs.
std::string changed_base_sentences(const lora::AdapterBase& base);

}  // namespace qlora::exporting
