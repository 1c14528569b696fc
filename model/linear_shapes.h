// The linear layers of one decoder layer by their names, for plans that are made before anything is
// loaded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_config.h"

namespace qlora::model {

// In the order of DecoderLayer's groups.
enum class Group { kQkv, kOutput, kGateUp, kDown };
constexpr int kNumGroups = 4;

struct LinearShape {
  Group group;
  const char* name;  // "self_attn.q_proj"
  int64_t out, in;
  bool bias;

  // "model.layers.3.self_attn.q_proj"
  std::string module(int64_t layer) const;
};

std::vector<LinearShape> linear_shapes(const ModelConfig& config);

// The modules of all decoder layers, layer by layer, without the head.
std::vector<std::string> linear_modules(const ModelConfig& config);

}  // namespace qlora::model
