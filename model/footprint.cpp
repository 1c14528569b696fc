#include "model/footprint.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <utility>

#include "io/json.h"
#include "lora/module_path.h"
#include "model/layer_quantization.h"
#include "model/load.h"
#include "model/tensor_kinds.h"
#include "quant/frozen_size.h"

namespace qlora::model {
namespace {

constexpr const char* kPackedState = ".quant_state.bitsandbytes__";
constexpr int64_t kMostElements = int64_t{1} << 40;  // of one packed weight

// What is counted as one, its parts gathered: a weight, or a norm with its bias.
struct StoredWeight {
  std::string kind, format;
  int64_t parameters = 0;
  int64_t bytes = 0;    // in the files
  int64_t held = 0;     // in memory, if it stays as it is stored
  bool packed = false;  // by bitsandbytes
  bool blocks = false;  // of GGUF
};
using StoredWeights = std::unordered_map<std::string, StoredWeight>;  // by TensorKind::module

class Rows {
 public:
  explicit Rows(const TensorKinds& kinds) : kinds_(kinds) {}

  void add(const std::string& kind, const std::string& format, int64_t parameters, int64_t bytes) {
    FootprintRow& row = rows_[{kinds_.rank(kind), format}];
    row.kind = kind;
    row.format = format;
    ++row.count;
    row.parameters += parameters;
    row.bytes += bytes;
  }

  std::vector<FootprintRow> in_order() const {
    std::vector<FootprintRow> rows;
    for (const auto& [place, row] : rows_) rows.push_back(row);
    return rows;
  }

 private:
  const TensorKinds& kinds_;
  std::map<std::pair<size_t, std::string>, FootprintRow> rows_;
};

std::string format_of(io::DType dtype) {
  switch (dtype) {
    case io::DType::kF64:
      return "float64";
    case io::DType::kF32:
      return "float32";
    case io::DType::kF16:
      return "float16";
    case io::DType::kBF16:
      return "bfloat16";
    default:
      return io::dtype_name(dtype);
  }
}

int64_t num_elements(const io::JsonNode& shape) {
  int64_t elements = 1;
  for (const io::JsonNode& size : shape.elements())
    elements *= size.as_integer(1, kMostElements / elements);
  return elements;
}

void read_packed_state(const io::TensorView& view, const std::string& code, StoredWeight& weight) {
  const std::string place = view.file + ": " + view.name;
  const std::string_view text(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
  const nlohmann::json document = io::parse_json(text, place);
  const io::JsonNode state(document, place);
  const bool nested = state.find("nested_blocksize").has_value();
  weight.parameters = num_elements(state.at("shape"));
  weight.format = code + (nested ? "+dq" : "");
  weight.packed = true;
  if (nested) weight.held += 4;  // the offset of the scales, a float32
}

void add_part(const io::TensorView& view, const std::string& part, StoredWeight& weight) {
  const auto bytes = static_cast<int64_t>(view.bytes.size());
  weight.bytes += bytes;
  if (const size_t state = part.find(kPackedState); state != std::string::npos)
    return read_packed_state(view, part.substr(state + std::string(kPackedState).size()), weight);
  if (part == ".weight.quant_map" || part == ".weight_format") return;  // known by the format
  weight.held += bytes;
  const bool in_four_bits = weight.packed && weight.format != "int8";
  if (part == ".SCB") {
    weight.format = "int8";
    weight.packed = true;
  } else if (part == ".weight" && !in_four_bits) {
    weight.parameters += view.num_elements();
    weight.blocks = io::is_block_type(view.dtype);
    if (!weight.packed) weight.format = format_of(view.dtype);
  } else if (part == ".bias") {
    weight.parameters += view.num_elements();
  }
  if (weight.format.empty()) weight.format = format_of(view.dtype);
}

// The layers that another tool packed, by their modules, still without their bytes.
StoredWeights packed_weights(const WeightSource* source) {
  StoredWeights weights;
  if (!source) return weights;
  for_each_linear(source->architecture(), [&](const std::string& module, const LinearSpec& linear) {
    const auto size = source->packed_size(module, linear.out, linear.in, {});
    if (!size || source->packing(module).empty() ||
        source->packing(module).starts_with("bitsandbytes"))
      return;
    StoredWeight& weight = weights[module];
    weight.kind = lora::last_name(module);
    weight.format = size->format;
    weight.parameters = linear.numbers();
  });
  return weights;
}

StoredWeights stored_weights(const std::vector<io::TensorView>& tensors, const TensorKinds& kinds,
                             const WeightSource* source = nullptr) {
  StoredWeights packed = packed_weights(source), weights;
  for (const io::TensorView& view : tensors) {
    const auto layer = packed.find(view.name.substr(0, view.name.rfind('.')));
    if (layer != packed.end() && !view.name.ends_with(".bias")) {
      layer->second.bytes += static_cast<int64_t>(view.bytes.size());
      continue;
    }
    const TensorKind of = kinds.of(view);
    StoredWeight& weight = weights[of.module];
    weight.kind = of.kind;
    add_part(view, of.part, weight);
  }
  weights.merge(packed);
  return weights;
}

// Of a linear layer that lies in the files as `stored`, null where it does not, or as `packed`.
quant::FrozenSize kept_size(const std::string& module, const LinearSpec& linear,
                            const StoredWeight* stored,
                            const std::optional<quant::FrozenSize>& packed, at::ScalarType dtype,
                            const quant::QuantizationOptions& options) {
  const bool in_blocks = stored && stored->blocks && options.method == "as_stored";
  if (in_blocks || (stored && stored->packed)) {
    const bool weight_only = stored->format == "int8" && options.method == "int8_weight_only";
    return {weight_only ? "int8 (W8A16)" : stored->format, stored->held};
  }
  if (packed) return *packed;
  return quant::frozen_size(quant::WeightShape::matrix(linear.out, linear.in), dtype,
                            quantization_of_layer(linear, options), module);
}

}  // namespace

std::vector<FootprintRow> stored_footprint(const std::vector<io::TensorView>& tensors,
                                           const Architecture* architecture,
                                           const WeightSource* source) {
  const TensorKinds kinds(tensors, architecture);
  Rows rows(kinds);
  for (const auto& [module, weight] : stored_weights(tensors, kinds, source))
    rows.add(weight.kind, weight.format, weight.parameters, weight.bytes);
  return rows.in_order();
}

std::vector<FootprintRow> kept_footprint(const WeightSource& source,
                                         const std::vector<io::TensorView>& tensors,
                                         const ModelOptions& options,
                                         const quant::QuantizationOptions& quantization) {
  const Architecture& a = source.architecture();
  const at::ScalarType dtype = resolved_dtype(options.dtype, source);
  const at::ScalarType outer = options.upcast == "all" ? at::kFloat : dtype;
  const auto type_of = [&](const std::string& name) { return source.dtype_of(name, dtype); };
  const TensorKinds kinds(tensors, &a);
  const StoredWeights stored = stored_weights(tensors, kinds);
  Rows rows(kinds);
  const auto add_dense = [&](const std::string& kind, int64_t numbers, at::ScalarType type) {
    if (numbers > 0)
      rows.add(kind, quant::dense_format(type), numbers,
               numbers * static_cast<int64_t>(c10::elementSize(type)));
  };
  for (const LookupTable& table : lookup_tables(a))
    add_dense(table.kind, table.numbers,
              table.kind == "embedding" ? outer : type_of(table.names.hugging_face + ".weight"));
  for_each_linear(a, [&](const std::string& module, const LinearSpec& linear) {
    const auto found = stored.find(module);
    const auto size = kept_size(module, linear, found == stored.end() ? nullptr : &found->second,
                                source.packed_size(module, linear.out, linear.in, quantization),
                                type_of(module + ".weight"), quantization);
    rows.add(lora::last_name(module), size.format, linear.numbers(), size.bytes);
    if (linear.bias) add_dense("biases", linear.out, type_of(module + ".bias"));
  });
  for_each_norm(a, [&](const std::string&, const NormSpec& norm) {
    add_dense("norms", norm.numbers() * ((norm.weight ? 1 : 0) + (norm.bias ? 1 : 0)), at::kFloat);
  });
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    for (const Branch& branch : a.block(layer).branches)
      if (const AttentionSpec* attention = branch.attention(); attention && attention->shape.sinks)
        add_dense("sinks", attention->shape.heads, at::kFloat);
  const std::string head_bias = a.head.names.hugging_face + ".bias";
  if (a.head.bias) add_dense("biases", a.head.out, outer == dtype ? type_of(head_bias) : outer);
  if (!a.tied_embeddings) add_dense("head", a.head.numbers(), outer);
  return rows.in_order();
}

}  // namespace qlora::model
