// What the recipe's `quantization` section decides. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::quant {

struct QuantizationOptions {
  std::string method = "as_stored";  // nf4 | fp4 | none | as_stored (section left out: 16-bit stays
                                     // 16-bit, GGUF blocks are decoded)
  bool double_quant = true;  // QLoRA section 3: 8-bit scales of scales, 0.37 bit a weight less
  int64_t block_size = 64;
  std::vector<std::string> skip_modules = {
      "lm_head"};  // kept in 16 bit; module path, suffix or part

  // Throws ConfigError naming the key.
  void validate() const;
  // "nf4, block size 64, double quantization, without lm_head"; "none".
  std::string to_text() const;
};

}  // namespace qlora::quant
