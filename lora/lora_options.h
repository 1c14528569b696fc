// What the recipe's `lora` section decides. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::lora {

struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32.0;
  double dropout = 0.0;
  std::vector<std::string> targets = {
      "all-linear"};             // or module names, or patterns (regex on the module path)
  std::string init = "default";  // initial_factors.h
  bool use_rslora = false;       // scaling alpha / sqrt(rank) instead of alpha / rank
  std::string from_adapter;      // a PEFT adapter directory to continue from; empty: none

  // Factor on B A x (LoRA section 4.1; rsLoRA, Kalajdzievski 2023).
  double scaling() const;
  // Throws ConfigError naming the key.
  void validate() const;
};

}  // namespace qlora::lora
