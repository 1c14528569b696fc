// What the recipe's `quantization` section decides. Defaults live here and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora {
class Faults;
}

namespace qlora::quant {

struct QuantizationOptions {
  // nf4 | fp4 | int8 (LLM.int8()) | int8_weight_only (W8A16) | none | as_stored (section left out:
  // 16 bit stays 16 bit, GGUF blocks, layers that other tools quantized (prequantized/) and experts
  // in MXFP4 stay what they are)
  std::string method = "as_stored";
  bool double_quant = true;  // QLoRA section 3: 8-bit scales of scales, 0.37 bit a weight less
  int64_t block_size = 64;
  double threshold = 6.0;  // of int8: outlier columns of the input; 0: none
  // Of int8: blocks that model.device_map has on the cpu or on disk stay unquantized, in float32,
  // and are multiplied on the CPU; llm_int8_enable_fp32_cpu_offload of BitsAndBytesConfig. What
  // makes it so is Placement::float32 (model/placement.h).
  bool fp32_cpu_offload = false;
  std::vector<std::string> skip_modules = {
      "lm_head"};  // kept in 16 bit; module path, suffix or part

  // Throws ConfigError naming the key.
  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
  // "nf4, block size 64, double quantization, without lm_head"; "none".
  std::string to_text() const;
};

}  // namespace qlora::quant
