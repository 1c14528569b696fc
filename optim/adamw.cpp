#include "optim/adamw.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "optim/optimizer_names.h"
#include "quant/dynamic_map.h"

namespace qlora::optim {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

void check_parameter(const Parameter& p, at::Device device) {
  const auto good = [&](const at::Tensor& t) {
    return t.defined() && t.scalar_type() == at::kFloat && t.is_contiguous() &&
           t.device() == device && t.numel() > 0;
  };
  check(good(p.value) && good(p.gradient) && p.value.sizes() == p.gradient.sizes(),
        "AdamW: value and gradient of '{}' must be contiguous fp32 of one shape, not empty, on one "
        "device",
        p.name);
  check(std::isfinite(p.lr_scale) && p.lr_scale >= 0,
        "AdamW: lr_scale of '{}' must be >= 0, got {}", p.name, p.lr_scale);
  check(std::isfinite(p.weight_decay), "AdamW: weight_decay of '{}' must be finite, got {}", p.name,
        p.weight_decay);
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

StateLayout::StateLayout(int64_t count, bool codes)
    : element_bytes(codes ? 1 : 4), count(count), num_blocks(codes ? num_state_blocks(count) : 0) {
  state2 = aligned(count * element_bytes);
  absmax1 = 2 * state2;
  absmax2 = absmax1 + aligned(num_blocks * 4);
  bytes = absmax2 + aligned(num_blocks * 4);
}

std::vector<StateLayout> state_pages(int64_t numel, int state_bits) {
  const bool codes = state_bits == 8 && numel >= kLeastElementsFor8Bit;
  std::vector<StateLayout> pages;
  for (int64_t begin = 0; begin < numel; begin += kPageElements)
    pages.emplace_back(std::min(kPageElements, numel - begin), codes);
  return pages;
}

StateBytes optimizer_state_bytes(const OptimizerOptions& options,
                                 const std::vector<int64_t>& parameter_sizes, bool on_gpu) {
  std::vector<StateLayout> pages;
  for (const int64_t numel : parameter_sizes) {
    const auto more = state_pages(numel, optimizer_kind(options.name).state_bits);
    pages.insert(pages.end(), more.begin(), more.end());
  }
  const PagePlan plan = plan_for(options, pages, on_gpu);
  return {plan.device_bytes, plan.host_bytes};
}

AdamW::AdamW(const OptimizerOptions& options, std::vector<Parameter> parameters)
    : options_(options), parameters_(std::move(parameters)), device_(at::kCPU) {
  options_.validate();
  check(!parameters_.empty(), "AdamW: there must be at least one parameter to train");
  check(parameters_[0].value.defined(), "AdamW: '{}' has no value", parameters_[0].name);
  device_ = parameters_[0].value.device();
  std::set<std::string> names;
  for (const Parameter& parameter : parameters_) {
    check_parameter(parameter, device_);
    check(names.insert(parameter.name).second, "AdamW: two parameters are called '{}'",
          parameter.name);
  }
  make_pages(optimizer_kind(options_.name).state_bits);
  make_runs();
}

void AdamW::make_pages(int state_bits) {
  std::vector<StateLayout> layouts;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    first_pages_.push_back(static_cast<int64_t>(pages_.size()));
    int64_t begin = 0;
    for (const StateLayout& layout : state_pages(parameters_[i].value.numel(), state_bits)) {
      pages_.push_back({static_cast<int64_t>(i), begin, layout});
      layouts.push_back(layout);
      begin += layout.count;
    }
  }
  first_pages_.push_back(static_cast<int64_t>(pages_.size()));
  pager_ = std::make_unique<Pager>(plan_for(options_, layouts, device_.is_cuda()), device_);
}

void AdamW::make_runs() {
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
    const bool codes = layout.num_blocks > 0;
    runs_.push_back({.value = parameter.value.data_ptr<float>() + page.begin,
                     .gradient = parameter.gradient.const_data_ptr<float>() + page.begin,
                     .count = layout.count,
                     .state1 = state,
                     .state2 = state + layout.state2,
                     .absmax1 = codes ? reinterpret_cast<float*>(state + layout.absmax1) : nullptr,
                     .absmax2 = codes ? reinterpret_cast<float*>(state + layout.absmax2) : nullptr,
                     .lr_scale = parameter.lr_scale,
                     .weight_decay = parameter.weight_decay < 0 ? options_.weight_decay
                                                                : parameter.weight_decay,
                     .first_block = first_block});
    first_block += num_state_blocks(layout.count);
  }
  if (!device_.is_cuda()) return;
  const auto upload = [&](const void* data, size_t bytes) {
    return at::from_blob(const_cast<void*>(data), {static_cast<int64_t>(bytes)}, at::kByte)
        .to(device_);
  };
  device_runs_ = upload(runs_.data(), runs_.size() * sizeof(AdamwRun));
  device_maps_ = at::cat({upload(quant::signed_dynamic_map().data(), sizeof(quant::DynamicMap)),
                          upload(quant::unsigned_dynamic_map().data(), sizeof(quant::DynamicMap))});
}

void AdamW::step(double lr, double gradient_scale) {
  check(std::isfinite(lr) && lr >= 0, "AdamW: the learning rate must be a number >= 0, got {}", lr);
  check(std::isfinite(gradient_scale), "AdamW: the gradient scale must be finite, got {}",
        gradient_scale);
  ++num_steps_;
  const auto t = static_cast<double>(num_steps_);
  const AdamwStep step{.lr = lr,
                       .gradient_scale = gradient_scale,
                       .beta1 = options_.beta1,
                       .beta2 = options_.beta2,
                       .eps = options_.eps,
                       .correction1 = 1.0 - std::pow(options_.beta1, t),
                       .correction2 = std::sqrt(1.0 - std::pow(options_.beta2, t))};
  pager_->for_each_window([&](int64_t index) {
    const PagePlan::Window& window = pager_->plan().windows[static_cast<size_t>(index)];
    const int64_t num_runs = window.last_page - window.first_page;
    const AdamwRun* runs = runs_.data() + window.first_page;
    [[maybe_unused]] const auto on_device = [&] {
      return reinterpret_cast<const AdamwRun*>(device_runs_.const_data_ptr<uint8_t>()) +
             window.first_page;
    };
    [[maybe_unused]] const int64_t num_blocks =
        runs[num_runs - 1].first_block + num_state_blocks(runs[num_runs - 1].count);
    QLORA_DISPATCH(
        device_, cpu::adamw(step, runs, num_runs),
        cuda::adamw(step, on_device(), num_runs, num_blocks,
                    reinterpret_cast<const float*>(device_maps_.const_data_ptr<uint8_t>()),
                    current_stream(device_)));
  });
}

}  // namespace qlora::optim
