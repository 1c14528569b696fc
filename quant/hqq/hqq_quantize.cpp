#include "quant/hqq/hqq_quantize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace qlora::quant {
namespace {

constexpr int kSteps = 20;
constexpr double kNorm = 0.7, kBeta = 10.0;
constexpr double kSmallestRange = 1e-4, kLargestScale = 2e4;

// What a scale and a zero are for: float32 [groups, 1] or [1, groups].
struct Fit {
  at::Tensor scale, zero;  // code = round(w scale + zero)
};

at::Tensor codes_of(const at::Tensor& w, const Fit& fit, int64_t most) {
  return (w * fit.scale).add_(fit.zero).round_().clamp_(0, most);
}

// Spans the range of each group.
Fit first_fit(const at::Tensor& w, const HqqOptions& options, int64_t most) {
  const at::Tensor low = at::amin(w, options.axis, true), high = at::amax(w, options.axis, true);
  const at::Tensor range = high - low;
  // The reciprocal times the number is what Python's number / tensor computes.
  at::Tensor scale = range.reciprocal().mul_(static_cast<double>(most));
  scale.masked_fill_(range.abs().le(kSmallestRange), 1.0).clamp_max_(kLargestScale);
  at::Tensor zero = low.neg().mul_(scale);
  if (options.bits == 4) zero.round_();
  return {scale, zero};
}

// sign(x) max(|x| - |x|^(p - 1) / beta, 0)
at::Tensor shrunk(const at::Tensor& x) {
  const at::Tensor size = x.abs();
  const at::Tensor rest = size - size.pow(kNorm - 1).mul_(1.0 / kBeta);
  return x.sign().mul_(rest.relu());
}

// The zero of the last step is kept, also if that step did not lower the error.
void optimize_zero(const at::Tensor& w, int axis, int64_t most, Fit& fit) {
  double best = 1e4;
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor codes = codes_of(w, fit, most);
    const at::Tensor difference = w - (codes - fit.zero).div_(fit.scale);
    const at::Tensor kept = (w - shrunk(difference)).mul_(fit.scale);
    fit.zero = at::mean(codes - kept, {axis}, true);
    const double error = difference.abs().mean().item<double>();
    if (!(error < best)) return;
    best = error;
  }
}

int codes_of_a_word(int bits) { return bits == 3 ? 10 : 8 / bits; }

void require_whole_words(int64_t rows, const HqqOptions& options, const std::string& module) {
  if (options.bits == 3 || rows % codes_of_a_word(options.bits) == 0) return;
  fail<ConfigError>(
      "{}: {} codes of {} bits fill a byte, and hqq packs along the {} {} of the grouped weight; "
      "choose another --group-size or --axis, or name the module in --skip-modules",
      module, codes_of_a_word(options.bits), options.bits, rows,
      options.axis == 1 ? "groups" : "numbers of a group");
}

at::Tensor packed(const QuantizedHqq& weight) {
  const int count = codes_of_a_word(weight.bits);
  at::Tensor codes = weight.bits == 3 ? weight.codes.to(at::kInt) : weight.codes;
  const int64_t step = (codes.size(0) + count - 1) / count;
  if (const int64_t missing = step * count - codes.size(0); missing > 0)
    codes = at::cat({codes, at::zeros({missing, codes.size(1)}, codes.options())});
  at::Tensor words = at::zeros({step, codes.size(1)}, codes.options());
  for (int part = 0; part < count; ++part)
    words.bitwise_or_(codes.narrow(0, part * step, step)
                          .bitwise_left_shift(at::Scalar((count - 1 - part) * weight.bits)));
  return words;
}

at::Tensor text_tensor(const std::string& text) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), tensor.mutable_data_ptr<uint8_t>());
  return tensor;
}

at::Tensor flag(bool value) { return at::scalar_tensor(value ? 1 : 0, at::kByte); }

at::Tensor number(int64_t value) { return at::scalar_tensor(value, at::kInt); }

std::string torch_name(at::ScalarType dtype) {
  if (dtype == at::kHalf) return "torch.float16";
  return dtype == at::kBFloat16 ? "torch.bfloat16" : "torch.float32";
}

}  // namespace

void HqqOptions::validate() const {
  constexpr int kBits[] = {1, 2, 3, 4, 8};
  if (std::ranges::find(kBits, bits) == std::end(kBits))
    fail<ConfigError>("--bits of hqq must be 1, 2, 3, 4 or 8, found {}", bits);
  if (axis != 0 && axis != 1) fail<ConfigError>("--axis must be 0 or 1, found {}", axis);
  if (group_size < 0 || (group_size > 0 && group_size % 8 != 0))
    fail<ConfigError>(
        "--group-size of hqq must be a multiple of 8, or 0 for groups of whole rows (columns with "
        "--axis 0), found {}",
        group_size);
}

std::string HqqOptions::to_text() const {
  const std::string groups =
      group_size > 0 ? fmt::format("group size {}", group_size) : "a group a line";
  return fmt::format("hqq, {} bit, {}, axis {}", bits, groups, axis);
}

QuantizedHqq hqq_quantize(const at::Tensor& weight, const HqqOptions& options,
                          at::ScalarType stored, const std::string& module) {
  check(weight.dim() == 2, "hqq_quantize: {} must be a matrix", module);
  const int64_t whole = options.axis == 1 ? weight.size(1) : weight.size(0);
  QuantizedHqq result;
  result.bits = options.bits;
  result.axis = options.axis;
  result.out = weight.size(0);
  result.in = weight.size(1);
  result.group_size = options.group_size > 0 ? options.group_size : whole;
  if (weight.numel() % result.group_size != 0)
    fail<ConfigError>(
        "{} has {} weights, which groups of {} do not divide; choose another --group-size, or name "
        "the module in --skip-modules",
        module, weight.numel(), result.group_size);
  const at::Tensor flat = weight.to(at::kFloat).contiguous();
  const at::Tensor w =
      options.axis == 1 ? flat.view({-1, result.group_size}) : flat.view({result.group_size, -1});
  require_whole_words(w.size(0), options, module);
  const int64_t most = (int64_t{1} << options.bits) - 1;
  Fit fit = first_fit(w, options, most);
  optimize_zero(w, options.axis, most, fit);
  result.codes = codes_of(w, fit, most).to(at::kByte).cpu();
  result.scales = fit.scale.reciprocal().to(stored).cpu();
  result.zeros = fit.zero.to(stored).cpu();
  return result;
}

at::Tensor hqq_dequantize(const QuantizedHqq& weight) {
  return weight.codes.to(at::kFloat)
      .sub_(weight.zeros.to(at::kFloat))
      .mul_(weight.scales.to(at::kFloat))
      .view({weight.out, weight.in});
}

NamedTensors hqq_file_tensors(const QuantizedHqq& weight) {
  const bool in_words = weight.bits == 3;
  const std::string packing = in_words ? "3bit_32" : fmt::format("{}bit_u8", weight.bits);
  at::Tensor shape = at::empty({2}, at::kLong);
  shape.mutable_data_ptr<int64_t>()[0] = weight.out;
  shape.mutable_data_ptr<int64_t>()[1] = weight.in;
  return {{"W_q", packed(weight)},
          {"scale", weight.scales},
          {"zero", weight.zeros},
          {"nbits", number(weight.bits)},
          {"group_size", number(weight.group_size)},
          {"shape", shape},
          {"axis", number(weight.axis)},
          {"packing", text_tensor(packing)},
          {"unpack_view_dtype", text_tensor(in_words ? "torch.int32" : "torch.uint8")},
          {"view_as_float", flag(false)},
          {"quant_scale", flag(false)},
          {"quant_zero", flag(false)},
          {"compute_dtype", text_tensor(torch_name(weight.scales.scalar_type()))},
          {"offload_meta", flag(false)},
          {"encoded_state_dict", flag(true)},
          {"stores_quant_config", flag(true)},
          {"channel_wise", flag(true)},
          {"optimize", flag(true)},
          {"round_zero", flag(weight.bits == 4)}};
}

}  // namespace qlora::quant
