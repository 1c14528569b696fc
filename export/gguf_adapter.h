// A LoRA adapter as a GGUF file, which llama.cpp applies to the base's own GGUF file (formats spec
// 9.9): for each adapted matrix lora_a [rank, in] and lora_b [out, rank], whose rows are in the
// order that the file has those of the matrix, and one alpha: the product counts alpha / rank
// times.
#pragma once

#include <string>

#include "export/gguf_types.h"
#include "lora/attach.h"
#include "model/causal_lm.h"

namespace qlora::exporting {

// `base`: what the model was made of (gguf_origin.h). `type`: f32, f16 or bf16. ConfigError, with
// the hint to merge, for what such a file cannot hold: magnitudes (DoRA), what is trained whole or
// by the row, adapters of experts or of a head that is the embedding too, and alphas that are not
// one (rank patterns with rank-stabilised scaling, alpha patterns); errors of describe_for_gguf().
void write_gguf_adapter(const std::string& path, const model::CausalLm& model,
                        const lora::AdapterSet& adapters, const std::string& base,
                        const GgufType& type);

// Copies the file's tensors to the slots of the model that it was written of; publish() is the
// caller's. FormatError if one is missing or of another shape.
void read_gguf_adapter(const std::string& path, model::CausalLm& model);

}  // namespace qlora::exporting
