// A small run to plan for.
#pragma once

#include <cstdint>
#include <string>

#include "model/families/llama_like.h"
#include "trainer/memory_plan.h"

namespace qlora::trainer {

// Large enough that nearly every tensor comes from the arena, whose figures are exact.
inline model::Architecture small_shape(int64_t num_layers = 3) {
  model::LlamaSizes config;
  config.vocab_size = 1024;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_layers = num_layers;
  config.num_heads = 8;
  config.num_kv_heads = 4;
  config.head_dim = 32;
  config.tied_embeddings = true;
  return model::llama_like("llama", config);
}

inline lora::LoraOptions rank_64() {
  lora::LoraOptions options;
  options.rank = 64;
  return options;
}

inline PlannedRun planned(const quant::QuantizationOptions& quantization, int64_t tokens) {
  PlannedRun run;
  run.architecture = small_shape();
  run.lora = rank_64();
  run.sequence_length = tokens;
  run.weight = [quantization](const std::string& module, const model::LinearSpec& linear) {
    return quant::planned_weight_bytes(quantization, module, linear.out, linear.in, at::kBFloat16);
  };
  return run;
}

inline int64_t bytes_for(const MemoryPlan& plan, const std::string& purpose) {
  for (const MemoryLine& line : plan.lines)
    if (line.purpose == purpose) return line.bytes;
  return 0;
}

inline quant::QuantizationOptions method(const std::string& name, bool double_quant = true) {
  quant::QuantizationOptions options;
  options.method = name;
  options.double_quant = double_quant;
  return options;
}

}  // namespace qlora::trainer
