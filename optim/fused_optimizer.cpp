#include "optim/fused_optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "base/profile.h"
#include "optim/optimizer_names.h"
#include "quant/blockwise8/dynamic_map.h"

namespace qlora::optim {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

void check_parameter(const Parameter& p, at::Device device) {
  const auto good = [&](const at::Tensor& t) {
    return t.defined() && t.scalar_type() == at::kFloat && t.is_contiguous() &&
           t.device() == device && t.numel() > 0;
  };
  check(good(p.value) && good(p.gradient) && p.value.sizes() == p.gradient.sizes(),
        "optimizer: value and gradient of '{}' must be contiguous fp32 of one shape, not empty, on "
        "one "
        "device",
        p.name);
  check(std::isfinite(p.lr_scale) && p.lr_scale >= 0,
        "optimizer: lr_scale of '{}' must be >= 0, got {}", p.name, p.lr_scale);
  check(std::isfinite(p.weight_decay), "optimizer: weight_decay of '{}' must be finite, got {}",
        p.name, p.weight_decay);
}

std::vector<int64_t> page_bytes_of(const std::vector<StateLayout>& pages) {
  std::vector<int64_t> bytes;
  for (const StateLayout& page : pages) bytes.push_back(page.bytes);
  return bytes;
}

PagePlan plan_for(const OptimizerOptions& options, const std::vector<StateLayout>& pages,
                  bool on_gpu) {
  const std::vector<int64_t> bytes = page_bytes_of(pages);
  int64_t total = 0;
  for (const int64_t page : bytes) total += aligned_page_bytes(page);
  if (!optimizer_kind(options.name).paged) return plan_pages(bytes, total);
  const int64_t least = least_arena_bytes(bytes);
  if (options.paged_resident_bytes == 0)
    return plan_pages(bytes, on_gpu ? std::max(least, total / 2) : total);
  if (options.paged_resident_bytes < least)
    fail<ConfigError>(
        "optim.paged_resident_bytes must be 0 or at least {} here (two pages of optimizer state), "
        "got {}",
        least, options.paged_resident_bytes);
  return plan_pages(bytes, options.paged_resident_bytes);
}

}  // namespace

StateLayout::StateLayout(int64_t count, bool codes, int num_states)
    : element_bytes(codes ? 1 : 4),
      count(count),
      num_blocks(codes ? num_state_blocks(count) : 0),
      num_states(num_states),
      bytes(absmax_offset(num_states)) {}

int64_t StateLayout::state_offset(int slot) const { return slot * aligned(count * element_bytes); }

int64_t StateLayout::absmax_offset(int slot) const {
  return state_offset(num_states) + slot * aligned(num_blocks * 4);
}

std::vector<StateLayout> state_pages(int64_t numel, int state_bits, int num_states) {
  const bool codes = state_bits == 8 && numel >= kLeastElementsFor8Bit;
  std::vector<StateLayout> pages;
  for (int64_t begin = 0; begin < numel; begin += kPageElements)
    pages.emplace_back(std::min(kPageElements, numel - begin), codes, num_states);
  return pages;
}

StateBytes optimizer_state_bytes(const OptimizerOptions& options,
                                 const std::vector<int64_t>& parameter_sizes, bool on_gpu) {
  const OptimizerKind& kind = optimizer_kind(options.name);
  std::vector<StateLayout> pages;
  for (const int64_t numel : parameter_sizes) {
    const auto more = state_pages(numel, kind.state_bits, state_slots(kind.rule).count);
    pages.insert(pages.end(), more.begin(), more.end());
  }
  const PagePlan plan = plan_for(options, pages, on_gpu);
  return {plan.device_bytes, plan.host_bytes};
}

FusedOptimizer::FusedOptimizer(const OptimizerOptions& options, std::vector<Parameter> parameters)
    : options_(options),
      kind_(optimizer_kind(options.name)),
      slots_(state_slots(kind_.rule)),
      parameters_(std::move(parameters)),
      device_(at::kCPU) {
  options_.validate();
  check(!parameters_.empty(), "optimizer: there must be at least one parameter to train");
  check(parameters_[0].value.defined(), "optimizer: '{}' has no value", parameters_[0].name);
  device_ = parameters_[0].value.device();
  std::set<std::string> names;
  for (const Parameter& parameter : parameters_) {
    check_parameter(parameter, device_);
    check(names.insert(parameter.name).second, "optimizer: two parameters are called '{}'",
          parameter.name);
  }
  make_pages();
  make_runs();
}

void FusedOptimizer::make_pages() {
  std::vector<StateLayout> layouts;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    first_pages_.push_back(static_cast<int64_t>(pages_.size()));
    int64_t begin = 0;
    for (const StateLayout& layout :
         state_pages(parameters_[i].value.numel(), kind_.state_bits, slots_.count)) {
      pages_.push_back({static_cast<int64_t>(i), begin, layout});
      layouts.push_back(layout);
      begin += layout.count;
    }
  }
  first_pages_.push_back(static_cast<int64_t>(pages_.size()));
  pager_ = std::make_unique<Pager>(plan_for(options_, layouts, device_.is_cuda()), device_);
}

void FusedOptimizer::make_runs() {
  int64_t window = -1, first_block = 0;
  for (size_t i = 0; i < pages_.size(); ++i) {
    const Page& page = pages_[i];
    const Parameter& parameter = parameters_[static_cast<size_t>(page.parameter)];
    if (const int64_t w = pager_->plan().page_windows[i]; w != window) {
      window = w;
      first_block = 0;
    }
    auto* state = static_cast<uint8_t*>(pager_->address(static_cast<int64_t>(i)));
    const StateLayout& layout = page.layout;
    UpdateRun run{
        .value = parameter.value.data_ptr<float>() + page.begin,
        .gradient = parameter.gradient.const_data_ptr<float>() + page.begin,
        .count = layout.count,
        .state = {},
        .absmax = {},
        .lr_scale = parameter.lr_scale,
        .weight_decay = parameter.weight_decay < 0 ? options_.weight_decay : parameter.weight_decay,
        .squares = nullptr,
        .update_scale = 1,
        .first_block = first_block};
    for (int slot = 0; slot < slots_.count; ++slot) {
      run.state[slot] = state + layout.state_offset(slot);
      if (layout.num_blocks > 0)
        run.absmax[slot] = reinterpret_cast<float*>(state + layout.absmax_offset(slot));
    }
    runs_.push_back(run);
    first_block += num_state_blocks(layout.count);
  }
  if (kind_.rule == Rule::kLamb) {
    squares_ = at::zeros({first_block, 2}, at::dtype(at::kDouble).device(device_));
    for (UpdateRun& run : runs_) run.squares = squares_.data_ptr<double>() + 2 * run.first_block;
  }
  if (!device_.is_cuda()) return;
  upload_runs();
  const auto upload = [&](const quant::DynamicMap& map) {
    return at::from_blob(const_cast<float*>(map.data()), {256}, at::kFloat).to(device_);
  };
  device_maps_ =
      at::cat({upload(quant::signed_dynamic_map()), upload(quant::unsigned_dynamic_map())});
}

void FusedOptimizer::upload_runs() {
  device_runs_ = at::from_blob(runs_.data(),
                               {static_cast<int64_t>(runs_.size() * sizeof(UpdateRun))}, at::kByte)
                     .to(device_);
}

void FusedOptimizer::launch(const UpdateStep& step) {
  pager_->for_each_window([&](int64_t index) {
    const PagePlan::Window& window = pager_->plan().windows[static_cast<size_t>(index)];
    const int64_t num_runs = window.last_page - window.first_page;
    const UpdateRun* runs = runs_.data() + window.first_page;
    [[maybe_unused]] const auto on_device = [&] {
      return reinterpret_cast<const UpdateRun*>(device_runs_.const_data_ptr<uint8_t>()) +
             window.first_page;
    };
    [[maybe_unused]] const int64_t num_blocks =
        runs[num_runs - 1].first_block + num_state_blocks(runs[num_runs - 1].count);
    QLORA_DISPATCH(device_, cpu::update(step, runs, num_runs),
                   cuda::update(step, on_device(), num_runs, num_blocks,
                                device_maps_.const_data_ptr<float>(), current_stream(device_)));
  });
}

void FusedOptimizer::scale_updates() {
  const at::Tensor squares = squares_.cpu();
  const auto* sums = squares.const_data_ptr<double>();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    double values = 0, updates = 0;
    const auto first = static_cast<size_t>(first_pages_[i]);
    const auto last = static_cast<size_t>(first_pages_[i + 1]);
    for (size_t page = first; page < last; ++page)
      for (int64_t block = 0; block < num_state_blocks(runs_[page].count); ++block) {
        values += sums[2 * (runs_[page].first_block + block)];
        updates += sums[2 * (runs_[page].first_block + block) + 1];
      }
    const double scale = updates > values ? std::sqrt(values / updates) : 1.0;
    for (size_t page = first; page < last; ++page) runs_[page].update_scale = scale;
  }
  if (device_.is_cuda()) upload_runs();
}

void FusedOptimizer::step(double lr, double gradient_scale) {
  const ProfileScope scope("optimizer");
  check(std::isfinite(lr) && lr >= 0, "optimizer: the learning rate must be a number >= 0, got {}",
        lr);
  check(std::isfinite(gradient_scale), "optimizer: the gradient scale must be finite, got {}",
        gradient_scale);
  ++num_steps_;
  const auto t = static_cast<double>(num_steps_);
  std::vector<double> betas = options_.betas_in_use();
  betas.resize(3, 0.0);
  UpdateStep step{.rule = kind_.rule,
                  .phase = Phase::kWhole,
                  .lr = lr,
                  .gradient_scale = gradient_scale,
                  .beta1 = betas[0],
                  .beta2 = betas[1],
                  .beta3 = betas[2],
                  .alpha = options_.alpha,
                  .eps = options_.eps,
                  .correction1 = 1.0 - std::pow(betas[0], t),
                  .correction2 = std::sqrt(1.0 - std::pow(betas[1], t))};
  if (kind_.rule == Rule::kAdemamix && options_.alpha_ramp > 0) {
    // Pagliardini et al. 2024, section 3: alpha rises linearly, the half-life of beta3 likewise.
    const double share = t / static_cast<double>(options_.alpha_ramp);
    const double log1 = std::log(betas[0]), log3 = std::log(betas[2]);
    step.alpha = std::min(share * options_.alpha, options_.alpha);
    step.beta3 = std::min(std::exp(log1 * log3 / ((1 - share) * log3 + share * log1)), betas[2]);
  }
  if (kind_.rule == Rule::kLamb) {
    step.phase = Phase::kMeasure;
    launch(step);
    scale_updates();
    step.phase = Phase::kApply;
  }
  launch(step);
}

}  // namespace qlora::optim
