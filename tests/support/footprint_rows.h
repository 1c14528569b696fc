// Footprints, and what a loaded model keeps, in the same terms; files of made-up tensors.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/causal_lm.h"
#include "model/footprint.h"
#include "quant/frozen_weight.h"

namespace qlora::test {

// The only row of its kind; Error if there is another number of them.
const model::FootprintRow& row_of(const std::vector<model::FootprintRow>& rows,
                                  const std::string& kind);
// Of all rows, in their order.
std::vector<std::string> kinds_of(const std::vector<model::FootprintRow>& rows);

using BytesByKind = std::map<std::string, int64_t>;
BytesByKind bytes_of(const std::vector<model::FootprintRow>& rows);
BytesByKind bytes_of(model::CausalLm& model);
int64_t total_bytes(const std::vector<model::FootprintRow>& rows);
int64_t total_bytes(const std::vector<io::TensorView>& tensors);

quant::QuantizationOptions options_of(const std::string& method, bool double_quant = true);
// On the CPU, to compute in bfloat16.
std::unique_ptr<model::CausalLm> loaded(model::WeightSource& source,
                                        const quant::QuantizationOptions& quantization,
                                        const model::ModelOptions& options = {});

// As they lie in a safetensors file.
std::vector<io::TensorView> in_a_file(const quant::NamedTensors& tensors);
// The same of zeros in bfloat16.
using NamedShapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;
std::vector<io::TensorView> in_a_file(const NamedShapes& shapes);

}  // namespace qlora::test
