// A layer that another tool quantized, written to a file and read back by a quant::StoredFormat;
// and what tests of such formats ask of the weight.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/error.h"
#include "base/instruction_set.h"
#include "io/safetensors.h"
#include "quant/prequantized/stored_format.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::test {

constexpr at::ScalarType kFloatingTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};
constexpr InstructionSet kInstructionSets[] = {InstructionSet::kBaseline, InstructionSet::kAvx2,
                                               InstructionSet::kAvx512,
                                               InstructionSet::kAvx512Bfloat16};

// The tensors lie in a file as "layer." and their names.
class LayerFile {
 public:
  explicit LayerFile(const quant::NamedTensors& parts) {
    quant::NamedTensors named;
    for (const auto& [name, tensor] : parts) named.emplace_back("layer." + name, tensor);
    quant::write_tensors(dir_ / "model.safetensors", named);
    file = io::read_safetensors(dir_ / "model.safetensors");
  }

  bool is_packed(const quant::StoredFormat& format) const { return format.holds(file, "layer"); }

  std::unique_ptr<quant::FrozenWeight> read(const quant::StoredFormat& format, int64_t out,
                                            int64_t in, const std::string& method = "as_stored") {
    quant::QuantizationOptions options;
    options.method = method;
    return format.read(file, "layer", quant::WeightShape::matrix(out, in), options, at::kCPU,
                       taken);
  }

  bool is_all_taken() const { return taken.size() == file.tensors.size(); }

  io::TensorFile file;
  std::set<std::string> taken;

 private:
  TempDir dir_;
};

// A format from the text of a quantization_config.
template <typename Make>
std::unique_ptr<quant::StoredFormat> format_from(const Make& make, const std::string& config) {
  const nlohmann::json document = nlohmann::json::parse(config);
  return make(io::JsonNode(document, "config.json.quantization_config"));
}

inline at::Tensor decoded_rows(const quant::FrozenWeight& weight, int64_t begin, int64_t end,
                               at::ScalarType dtype = at::kFloat) {
  at::Tensor rows = at::empty({end - begin, weight.in_features()},
                              at::TensorOptions().dtype(dtype).device(weight.device()));
  weight.dequantize_rows(0, begin, end, rows);
  return rows;
}
inline at::Tensor decoded_rows(const quant::FrozenWeight& weight,
                               at::ScalarType dtype = at::kFloat) {
  return decoded_rows(weight, 0, weight.out_features(), dtype);
}

// Whether x Wᵀ of a few rows is that of the decoded rows but for the rounding of its sums: of n
// terms in float32, n 2^-24 of the sum of magnitudes at most.
inline bool multiplies_decoded_rows(const quant::FrozenWeight& weight) {
  const at::Tensor x = at::randn({3, weight.in_features()}, decoded_rows(weight, 0, 1).options());
  const at::Tensor wide = x.to(at::kDouble), w = decoded_rows(weight).to(at::kDouble);
  const double error = static_cast<double>(weight.in_features() + 2) * 0x1p-24;
  const at::Tensor bound = at::mm(wide.abs(), w.abs().t()) * error;
  quant::Workspace workspace;
  const at::Tensor found = weight.forward(x, workspace);
  return ((found - at::mm(wide, w.t())).abs() <= bound).all().item<bool>();
}

// What the body's exception of type E says.
template <typename E, typename Body>
std::string complaint_of(const Body& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace qlora::test
