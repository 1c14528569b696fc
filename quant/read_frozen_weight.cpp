#include "quant/read_frozen_weight.h"

#include <ATen/ATen.h>

#include <set>

#include "base/error.h"
#include "quant/formats/bitsandbytes_layout.h"
#include "quant/frozen_size.h"
#include "quant/make_frozen_weight.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

std::unique_ptr<FrozenWeight> read_packed(const io::TensorFile& file, const std::string& module,
                                          const WeightShape& shape,
                                          const QuantizationOptions& options, at::Device device) {
  std::set<std::string> read;
  const Int8Products products{options.method == "int8_weight_only", options.threshold};
  auto weight = read_bitsandbytes_module(file, module, shape, products, device, read);
  if (options.method == "as_stored") return weight;
  const std::string wanted = frozen_size(shape, at::kFloat, options, module).format;
  if (wanted != weight->format())
    fail<ConfigError>(
        "quantization: {} holds {} in {}, and {} is asked for; ask for as_stored to take it as it "
        "is, or give the original 16-bit weights",
        file.at(module + ".weight").file, module, weight->format(), wanted);
  return weight;
}

}  // namespace

std::unique_ptr<FrozenWeight> read_frozen_weight(const io::TensorFile& file,
                                                 const std::string& module,
                                                 const WeightShape& shape,
                                                 const QuantizationOptions& options,
                                                 at::Device device) {
  const io::TensorView& view = file.at(module + ".weight");
  if (is_bitsandbytes_module(file, module))
    return read_packed(file, module, shape, options, device);
  require_tensor(view, {io::DType::kF32, io::DType::kBF16, io::DType::kF16}, shape.sizes());
  return make_frozen_weight(take_finite(view).to(device), options, module);
}

void add_frozen_weight(NamedTensors& tensors, const std::string& module,
                       const FrozenWeight& weight) {
  for (auto& [name, tensor] : weight.state()) tensors.emplace_back(module + "." + name, tensor);
}

}  // namespace qlora::quant
