#include "recipes/models/compute_dtype.h"

#include <fmt/format.h>

#include "base/device.h"
#include "base/instruction_set.h"
#include "model/load.h"
#include "quant/products/product.h"

namespace qlora::recipes {
namespace {

bool multiplies_bfloat16(c10::Device device) {
  return device.is_cpu() ? quant::cpu_multiplies_bfloat16() : gpu_has_bfloat16();
}

}  // namespace

std::string resolved_compute_dtype(const std::string& wish, c10::Device device) {
  if (wish != "auto") return wish;
  if (multiplies_bfloat16(device)) return "bfloat16";
  return device.is_cpu() ? "float32" : "float16";
}

at::ScalarType compute_dtype_of(const std::string& wish, c10::Device device) {
  return model::dtype_from_string(resolved_compute_dtype(wish, device), "train.compute_dtype");
}

bool keeps_narrow_gates(const std::string& wish, c10::Device device) {
  return wish == "auto" && resolved_compute_dtype(wish, device) == "float32";
}

std::string compute_dtype_sentence(const std::string& wish, const std::string& resolved,
                                   c10::Device device) {
  std::string sentence = "products are " + resolved;
  if (!device.is_cpu() && multiplies_bfloat16(device)) return sentence;
  if (!device.is_cpu() && resolved == "bfloat16")
    return sentence + ", which this GPU does not multiply fast; float16 is faster";
  if (!device.is_cpu())
    return wish == "auto" ? sentence + ", since this GPU has no bfloat16 products" : sentence;
  const std::string has = describe_instruction_set();
  if (resolved == "bfloat16" && multiplies_bfloat16(device))
    return sentence + ", which this processor multiplies (" + has + ")";
  if (resolved == "float32" && wish == "auto")
    return sentence + ", since there are no bfloat16 products with " + has;
  if (resolved == "float32") return sentence;
  return fmt::format(
      "{}, which is multiplied as float32 with {}: it takes as long as that, and rounds more",
      sentence, has);
}

}  // namespace qlora::recipes
