#include "quant/prequantized/eetq.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/parallel_for.h"
#include "base/warn_once.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/grouped_layer.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr const char* kFormat = "eetq";
constexpr const char* kParts[] = {"qweight", "weight_scales"};
constexpr std::string_view kRead[] = {"weights"};
constexpr int kInputOfPlace[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
constexpr int kByteOfPlace[4] = {0, 2, 1, 3};

// The bytes of output `c`, each at its input.
void unpack_output(const uint8_t* bytes, int64_t in, int64_t c, uint8_t* row) {
  for (int64_t v = 0; v < in / 4; ++v) {
    const int64_t word = c / 2 * (in / 2) + 32 * (v / 16) + 16 * (c % 2) + v % 16;
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t place = 4 * v + j;
      row[place / 16 * 16 + kInputOfPlace[place % 16]] = bytes[4 * word + kByteOfPlace[j]];
    }
  }
}

class Eetq final : public StoredFormat {
 public:
  explicit Eetq(const io::JsonNode& config) {
    if (const auto weights = config.find("weights"); weights && weights->as_string() != "int8")
      weights->reject("'int8'");
    check_config_keys(config, kRead);
  }

  std::string name() const override { return "EETQ"; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return file.find(module + ".weight_scales") || file.find(module + ".qweight");
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    StoredParts parts(file, module, name(), read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    GroupedTensor weight = decode(parts, shape);
    parts.require_all_taken();
    log::warning_once(
        "{}: EETQ's weights are read in the order of GPUs of compute capability 7.5 to 8.9; a file "
        "does not say for which it was made",
        parts.place());
    return grouped_layer(std::move(weight), kFormat, module, device);
  }

  FrozenSize size(const std::string&, const WeightShape& shape) const override {
    return grouped_size(shape, {.bits = 8}, kFormat);
  }

 private:
  static GroupedTensor decode(StoredParts& parts, const WeightShape& shape) {
    const std::string codes = parts.find("qweight") ? "qweight" : "weight";
    const at::Tensor stored = parts.take(codes, io::DType::kI8, {shape.in, shape.out});
    if (shape.in % 64 != 0 || shape.out % 2 != 0)
      parts.reject(codes, fmt::format("must have inputs in whole 64s and an even number of "
                                      "outputs, found {} and {}",
                                      shape.in, shape.out));
    GroupedTensor weight;
    weight.bits = 8;
    weight.in = shape.in;
    weight.group_size = shape.in;
    weight.zero = 128;
    weight.codes = at::empty({shape.out, shape.in}, at::kByte);
    weight.scales = parts.take_scales("weight_scales", {shape.out}).view({shape.out, 1});
    const auto* bytes = reinterpret_cast<const uint8_t*>(stored.const_data_ptr<int8_t>());
    auto* rows = weight.codes.mutable_data_ptr<uint8_t>();
    parallel_for(shape.out, 16, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) unpack_output(bytes, shape.in, c, rows + c * shape.in);
    });
    return weight;
  }
};

}  // namespace

std::unique_ptr<StoredFormat> eetq_format(const io::JsonNode& config) {
  return std::make_unique<Eetq>(config);
}

}  // namespace qlora::quant
