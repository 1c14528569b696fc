#include "quant/prequantized/grouped_layer.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/parallel_for.h"
#include "quant/prequantized/code_words.h"

namespace qlora::quant {
namespace {

std::string format_name(const std::string& format, int bits) {
  return fmt::format("{}, {} bit", format, bits);
}

void join_equal_zeros(GroupedTensor& weight) {
  if (!weight.zeros.defined()) return;
  const at::Tensor first = weight.zeros.flatten()[0];
  if (!(weight.zeros == first).all().item<bool>()) return;
  weight.zero = first.item<float>();
  weight.zeros = at::Tensor();
}

}  // namespace

int64_t num_groups(int64_t in, int64_t group_size) {
  return group_size <= 0 ? 1 : (in + group_size - 1) / group_size;
}

int64_t group_columns(int64_t in, int64_t group_size) { return group_size <= 0 ? in : group_size; }

void require_likely_groups(const StoredParts& parts, const std::string& part, int64_t in,
                           int64_t group_size, const std::string& config) {
  const int64_t groups = num_groups(in, group_size);
  if (groups == 1 || is_likely_size(in, group_size)) return;
  const std::string others =
      in % groups == 0 ? fmt::format("; groups of {} would be as many", in / groups) : "";
  parts.reject(part,
               fmt::format("has {} groups for {} inputs, and the group size of {} in {} neither "
                           "divides them nor is a power of two{}; set group_size there to the size "
                           "with which the weights were quantized",
                           groups, in, group_size, config, others));
}

void reject_lost_order(const StoredParts& parts, const std::string& part, const char* lost,
                       const std::string& setting) {
  parts.reject(part,
               fmt::format("has no {} beside it, which tells the groups of its columns as {}; "
                           "the file lost it: quantize the model again, or give the original "
                           "16-bit model",
                           lost, setting));
}

at::Tensor rows_of_int8(const at::Tensor& codes) {
  check(codes.dim() == 2 && codes.scalar_type() == at::kChar && codes.is_contiguous(),
        "rows_of_int8: codes must be int8 [rows, in], contiguous");
  const int64_t rows = codes.size(0), in = codes.size(1), row_bytes = grouped_row_bytes(8, in);
  at::Tensor packed = at::empty({rows, row_bytes}, at::kByte);
  const auto* from = reinterpret_cast<const uint8_t*>(codes.const_data_ptr<int8_t>());
  auto* to = packed.mutable_data_ptr<uint8_t>();
  parallel_for(rows, 1 + 65536 / in, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < in; ++i)
        to[r * row_bytes + i] = static_cast<uint8_t>(from[r * in + i] ^ 0x80u);
      std::fill(to + r * row_bytes + in, to + (r + 1) * row_bytes, uint8_t{0});
    }
  });
  return packed;
}

std::unique_ptr<FrozenWeight> grouped_layer(GroupedTensor weight, const std::string& format,
                                            const std::string& module, at::Device device) {
  join_equal_zeros(weight);
  check_grouped(weight, module);
  for (at::Tensor* part : {&weight.codes, &weight.scales, &weight.zeros, &weight.group_of})
    if (part->defined()) *part = part->to(device);
  const std::string name = format_name(format, weight.bits);
  return std::make_unique<GroupedWeight>(std::move(weight), name);
}

FrozenSize grouped_size(const WeightShape& shape, const GroupedSize& stored,
                        const std::string& format) {
  const int bits = kept_bits(stored.bits);
  const int64_t scales = shape.num_rows() * num_groups(shape.in, stored.group_size);
  const int64_t bytes = shape.num_rows() * grouped_row_bytes(bits, shape.in) +
                        scales * (stored.bytes_of_scale + (stored.zeros ? 1 : 0)) +
                        (stored.group_of ? 4 * shape.in : 0);
  return {format_name(format, bits), bytes, {WeightKind::kDecoded, at::kFloat}};
}

}  // namespace qlora::quant
