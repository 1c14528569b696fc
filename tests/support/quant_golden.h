// Golden answers of bitsandbytes: tests/golden/quant/bitsandbytes.json, made by
// make_bitsandbytes.py beside it.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <string>

namespace qlora::test {

nlohmann::json bitsandbytes_golden(const std::string& golden_folder);
// Raw bits in hex -> a 1-D tensor.
at::Tensor tensor_from_hex(const std::string& hex, at::ScalarType dtype);
at::ScalarType dtype_from_name(const std::string& name);
// Equal as raw bytes: tells -0 from +0 and compares NaN by its bits.
bool same_bytes(const at::Tensor& a, const at::Tensor& b);

}  // namespace qlora::test
