#include "tests/support/quant_golden.h"

#include <ATen/ATen.h>

#include <cstring>
#include <fstream>

#include "base/error.h"

namespace qlora::test {

nlohmann::json bitsandbytes_golden(const std::string& golden_folder) {
  const std::string path = golden_folder + "/quant/bitsandbytes.json";
  std::ifstream file(path);
  check(file.good(), "cannot read {}", path);
  return nlohmann::json::parse(file);
}

at::Tensor tensor_from_hex(const std::string& hex, at::ScalarType dtype) {
  const auto size = static_cast<int64_t>(hex.size() / 2 / c10::elementSize(dtype));
  at::Tensor tensor = at::empty({size}, dtype);
  auto* bytes = static_cast<uint8_t*>(tensor.mutable_data_ptr());
  for (size_t i = 0; i < hex.size() / 2; ++i)
    bytes[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return tensor;
}

at::ScalarType dtype_from_name(const std::string& name) {
  return name == "float32" ? at::kFloat : name == "bfloat16" ? at::kBFloat16 : at::kHalf;
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.numel() == b.numel() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

}  // namespace qlora::test
