#include "quant/gptq/gptq_quantize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace qlora::quant {
namespace {

// Columns between two corrections of the whole matrix, and of the block alone.
constexpr int64_t kBlock = 128, kPanel = 16;
constexpr double kDampStep = 0.01;
constexpr double kSmallestHalf = 0x1p-24;
// Of the search for ranges: 1, 0.99, ... of the full range.
constexpr int kRangeSteps = 100, kRangesTried = 80;

int64_t size_of_group(const GptqOptions& options, int64_t in) {
  return options.group_size > 0 ? options.group_size : in;
}

// Scale and zero of one group, float32 [out].
struct Range {
  at::Tensor scale, zero;
};

at::Tensor codes_of(const at::Tensor& columns, const Range& range, int64_t most) {
  return (columns / range.scale).round_().add_(range.zero).clamp_(0, most);
}

at::Tensor decoded(const at::Tensor& codes, const Range& range) {
  return (codes - range.zero).mul_(range.scale);
}

Range range_between(const at::Tensor& low, const at::Tensor& high, const GptqOptions& options) {
  const int64_t most = (int64_t{1} << options.bits) - 1;
  const at::Tensor exact = (high - low).div_(static_cast<double>(most));
  const at::Tensor scale = exact.to(at::kHalf).to(at::kFloat).clamp_min_(kSmallestHalf);
  if (options.symmetric) return {scale, at::full_like(scale, static_cast<double>((most + 1) / 2))};
  return {scale, low.neg().div_(scale).round_().clamp_(0, most)};
}

// Narrows the range of each row to the one with the least error.
Range searched_range(const at::Tensor& columns, const at::Tensor& low, const at::Tensor& high,
                     const GptqOptions& options) {
  const int64_t most = (int64_t{1} << options.bits) - 1;
  Range best = range_between(low, high, options);
  at::Tensor least;
  for (int step = 0; step < kRangesTried; ++step) {
    const double share = 1.0 - static_cast<double>(step) / kRangeSteps;
    const Range tried = range_between(low * share, high * share, options);
    const at::Tensor error = decoded(codes_of(columns, tried, most), tried)
                                 .sub_(columns)
                                 .abs_()
                                 .pow_(options.mse)
                                 .sum(0);
    if (!least.defined()) {
      least = error;
      continue;
    }
    const at::Tensor better = error.lt(least);
    least = at::where(better, error, least);
    best = {at::where(better, tried.scale, best.scale), at::where(better, tried.zero, best.zero)};
  }
  return best;
}

// columns: float32 [size of the group, out]. Zero is within every range.
Range range_of(const at::Tensor& columns, const GptqOptions& options) {
  at::Tensor low = at::amin(columns, 0).clamp_max_(0), high = at::amax(columns, 0).clamp_min_(0);
  if (options.symmetric) {
    high = at::maximum(high, low.neg());
    low = high.neg();
  }
  const at::Tensor empty = high.eq(0).logical_and_(low.eq(0));
  low.masked_fill_(empty, -1);
  high.masked_fill_(empty, 1);
  return options.mse > 0 ? searched_range(columns, low, high, options)
                         : range_between(low, high, options);
}

// The most important column first, as far as the options want it; undefined: as they are.
at::Tensor column_order(const at::Tensor& importance, const GptqOptions& options) {
  const int64_t in = importance.size(0), size = size_of_group(options, in);
  if (options.order == GptqOrder::kActivations) return at::argsort(importance, true, 0, true);
  if (options.order == GptqOrder::kPlain || options.group_size <= 0) return {};
  const int64_t groups = in / size, whole = groups * size;
  std::vector<at::Tensor> parts;
  if (groups > 0) {
    const at::Tensor by_group = importance.narrow(0, 0, whole).view({groups, size});
    const at::Tensor first = at::arange(groups, at::kLong).to(importance.device()) * size;
    const at::Tensor within = at::argsort(by_group, true, 1, true) + first.unsqueeze(1);
    const at::Tensor of_groups = at::argsort(at::amax(by_group, 1), true, 0, true);
    parts.push_back(within.index_select(0, of_groups).flatten());
  }
  if (whole < in)  // the short group stays behind the others
    parts.push_back(at::argsort(importance.narrow(0, whole, in - whole), true, 0, true) + whole);
  return at::cat(parts);
}

// U of a positive definite matrix, upper triangular with Uᵀ U = H⁻¹: with J the exchange of first
// and last, J H J = L Lᵀ gives U = J L⁻¹ J. Undefined if the matrix has no factor L.
at::Tensor inverse_factor(const at::Tensor& damped) {
  const auto [lower, info] = at::linalg_cholesky_ex(damped.flip({0, 1}), /*upper=*/false,
                                                    /*check_errors=*/false);
  if (info.item<int64_t>() != 0) return {};
  const at::Tensor identity = at::eye(damped.size(0), damped.options());
  return at::linalg_solve_triangular(lower, identity, /*upper=*/false).flip({0, 1}).contiguous();
}

// The columns of one weight on their way through GPTQ, transposed so that a column is contiguous.
class Rounding {
 public:
  Rounding(const at::Tensor& weight, const GptqFactor& factor, const GptqOptions& options)
      : options_(options),
        factor_(factor),
        in_(weight.size(1)),
        group_size_(size_of_group(options, in_)),
        groups_((in_ + group_size_ - 1) / group_size_),
        most_((int64_t{1} << options.bits) - 1) {
    w_ = weight.to(at::kFloat).t().contiguous();
    if (factor.dead.defined()) w_ = w_.masked_fill(factor.dead.unsqueeze(1), 0);
    ranges_.resize(static_cast<size_t>(groups_));
    if (options.static_groups)
      for (int64_t g = 0; g < groups_; ++g) ranges_[static_cast<size_t>(g)] = range_at(g);
    if (factor.order.defined()) w_ = w_.index_select(0, factor.order);
    number_groups();
    codes_ = at::empty(w_.sizes(), w_.options().dtype(at::kByte));
  }

  GroupedTensor run() {
    for (int64_t begin = 0; begin < in_; begin += kBlock)
      round_block(begin, std::min(begin + kBlock, in_));
    return result();
  }

 private:
  Range range_at(int64_t position) const {
    const int64_t first = position * group_size_;
    return range_of(w_.narrow(0, first, std::min(group_size_, in_ - first)), options_);
  }

  // group_[p]: that of the column in place p of the order. Groups that follow the order are made of
  // columns that follow each other in it.
  void number_groups() {
    std::vector<int64_t> columns(static_cast<size_t>(in_));
    for (int64_t p = 0; p < in_; ++p) columns[static_cast<size_t>(p)] = p;
    const bool follow = options_.order == GptqOrder::kActivations && !options_.static_groups;
    if (factor_.order.defined() && !follow) {
      const at::Tensor order = factor_.order.cpu().contiguous();
      const auto* data = order.const_data_ptr<int64_t>();
      columns.assign(data, data + in_);
    }
    for (const int64_t column : columns) group_.push_back(column / group_size_);
  }

  const Range& range(int64_t place) const {
    return ranges_[static_cast<size_t>(group_[static_cast<size_t>(place)])];
  }

  void round_block(int64_t begin, int64_t end) {
    for (int64_t p = (begin + group_size_ - 1) / group_size_ * group_size_;
         p < end && !options_.static_groups; p += group_size_)
      ranges_[static_cast<size_t>(group_[static_cast<size_t>(p)])] = range_at(p / group_size_);
    at::Tensor block = w_.narrow(0, begin, end - begin).clone();
    at::Tensor errors = at::empty_like(block);
    for (int64_t first = begin; first < end; first += kPanel) {
      const int64_t last = std::min(first + kPanel, end);
      for (int64_t p = first; p < last; ++p) round_column(p, last, begin, block, errors);
      correct(first, last, last, end, errors.narrow(0, first - begin, last - first), block, begin);
    }
    correct(begin, end, end, in_, errors, w_, 0);
  }

  // Column p, and what of its error the columns up to `end` make up for.
  void round_column(int64_t p, int64_t end, int64_t begin, at::Tensor& block,
                    at::Tensor& errors) const {
    const at::Tensor column = block[p - begin];
    const at::Tensor codes = codes_of(column, range(p), most_);
    codes_[p].copy_(codes);
    if (!factor_.upper.defined()) return;
    const at::Tensor row = factor_.upper[p];
    at::Tensor error = errors[p - begin];
    at::sub_out(error, column, decoded(codes, range(p)));
    error.div_(row[p]);
    if (p + 1 < end)
      block.narrow(0, p + 1 - begin, end - p - 1)
          .addr_(row.narrow(0, p + 1, end - p - 1), error, 1, -1);
  }

  // Columns [from, to) of `w`, whose first row is column `offset`, make up for the errors of
  // columns [first, last).
  void correct(int64_t first, int64_t last, int64_t from, int64_t to, const at::Tensor& errors,
               at::Tensor& w, int64_t offset) const {
    if (from == to || !factor_.upper.defined()) return;
    const at::Tensor share =
        factor_.upper.narrow(0, first, last - first).narrow(1, from, to - from).t();
    w.narrow(0, from - offset, to - from).addmm_(share, errors, 1, -1);
  }

  GroupedTensor result() const {
    GroupedTensor result;
    result.bits = options_.bits;
    result.in = in_;
    result.group_size = group_size_;
    std::vector<at::Tensor> scales, zeros;
    for (const Range& range : ranges_) {
      scales.push_back(range.scale);
      zeros.push_back(range.zero);
    }
    result.scales = at::stack(scales, 1).to(at::kHalf).cpu();
    if (options_.symmetric)
      result.zero = static_cast<float>((most_ + 1) / 2);
    else
      result.zeros = at::stack(zeros, 1).to(at::kByte).cpu();
    at::Tensor codes = codes_;
    std::vector<int32_t> group_of(group_.begin(), group_.end());
    if (factor_.order.defined()) {
      codes = at::empty_like(codes_).index_copy_(0, factor_.order, codes_);
      const at::Tensor order = factor_.order.cpu().contiguous();
      for (int64_t p = 0; p < in_; ++p)
        group_of[static_cast<size_t>(order.const_data_ptr<int64_t>()[p])] =
            static_cast<int32_t>(group_[static_cast<size_t>(p)]);
    }
    result.codes = pack_codes(codes.t().contiguous().cpu(), options_.bits);
    for (int64_t i = 0; i < in_; ++i)
      if (group_of[static_cast<size_t>(i)] != i / group_size_) {
        result.group_of = at::tensor(group_of, at::kInt);
        break;
      }
    return result;
  }

  const GptqOptions& options_;
  const GptqFactor& factor_;
  int64_t in_, group_size_, groups_, most_;
  at::Tensor w_;                // float32 [in, out], in the order of rounding
  at::Tensor codes_;            // uint8, the same
  std::vector<Range> ranges_;   // of each group
  std::vector<int64_t> group_;  // of each column in the order of rounding
};

GroupedTensor checked(GroupedTensor weight, const std::string& module) {
  check(at::isfinite(weight.scales).all().item<bool>(),
        "{}: a scale is beyond what float16 holds; gptq stores scales in float16", module);
  return weight;
}

}  // namespace

void GptqHessian::add(const at::Tensor& x) {
  check(x.dim() == 2 && x.size(1) == in_, "GptqHessian: inputs must be [tokens, {}]", in_);
  const int64_t more = x.size(0);
  if (more == 0) return;
  const at::Tensor rows = x.to(at::kFloat);
  if (!sum_.defined()) sum_ = at::zeros({in_, in_}, rows.options());
  const auto all = static_cast<double>(tokens_ + more);
  sum_.addmm_(rows.t(), rows, static_cast<double>(tokens_) / all, 2.0 / all);
  tokens_ += more;
}

at::Tensor GptqHessian::matrix() const {
  return sum_.defined() ? sum_ : at::zeros({in_, in_}, at::kFloat);
}

GptqFactor gptq_factor(const at::Tensor& hessian, const GptqOptions& options,
                       const std::string& module) {
  check(at::isfinite(hessian.diagonal()).all().item<bool>(),
        "{}: the inputs that the calibration rows give are not finite", module);
  GptqFactor factor;
  at::Tensor h = hessian.clone();
  factor.dead = h.diagonal().eq(0);
  h.diagonal().masked_fill_(factor.dead, 1);
  factor.order = column_order(h.diagonal().contiguous(), options);
  if (factor.order.defined()) h = h.index_select(0, factor.order).index_select(1, factor.order);
  const double mean = h.diagonal().mean().item<double>();
  double added = options.damp * mean;
  h.diagonal().add_(added);
  while (!(factor.upper = inverse_factor(h)).defined()) {
    check(added < mean, "{}: the Hessian of the calibration rows has no inverse", module);
    h.diagonal().add_(kDampStep * mean);
    added += kDampStep * mean;
  }
  return factor;
}

GroupedTensor gptq_quantize(const at::Tensor& weight, const GptqFactor& factor,
                            const GptqOptions& options, const std::string& module) {
  check(weight.dim() == 2 && factor.upper.size(0) == weight.size(1),
        "gptq_quantize: {} and the Hessian must have the same columns", module);
  return checked(Rounding(weight, factor, options).run(), module);
}

GroupedTensor round_to_nearest(const at::Tensor& weight, const GptqOptions& options,
                               const std::string& module) {
  return checked(Rounding(weight, GptqFactor(), options).run(), module);
}

}  // namespace qlora::quant
