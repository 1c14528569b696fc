// Optimizer state to and from named tensors.
#include <ATen/ATen.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "optim/fused_optimizer.h"

namespace qlora::optim {
namespace {

// Where one part of a page (a state or its absmax) lies in the page and in which of the parameter's
// tensors, in bytes.
struct Part {
  size_t tensor;
  int64_t in_page, in_tensor, bytes;
};

// `numel`: of the whole parameter.
std::vector<Part> parts_of(const StateLayout& layout, const StateSlots& slots, int64_t begin,
                           int64_t numel) {
  const int num_tensors = slots.slots[slots.count - 1].tensor + 1;
  std::vector<Part> parts;
  for (int i = 0; i < slots.count; ++i) {
    const StateSlot& slot = slots.slots[i];
    parts.push_back({static_cast<size_t>(slot.tensor), layout.state_offset(i),
                     (slot.row * numel + begin) * layout.element_bytes,
                     layout.count * layout.element_bytes});
    if (layout.num_blocks > 0)
      parts.push_back({static_cast<size_t>(num_tensors + slot.tensor), layout.absmax_offset(i),
                       (slot.row * num_state_blocks(numel) + begin / kStateBlock) * 4,
                       layout.num_blocks * 4});
  }
  return parts;
}

std::string describe(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", at::toString(tensor.scalar_type()),
                     fmt::join(tensor.sizes().vec(), ", "));
}

// No part is ever infinite in a healthy run, and sums of squares and absmaxes are >= 0.
void check_values(const std::string& name, const at::Tensor& tensor, bool non_negative) {
  if (tensor.scalar_type() != at::kFloat) return;
  const bool good = at::isfinite(tensor).all().item<bool>() &&
                    (!non_negative || (tensor >= 0).all().item<bool>());
  if (!good)
    fail<FormatError>("optimizer state: '{}' must hold finite numbers{}; the checkpoint is damaged",
                      name, non_negative ? " >= 0" : "");
}

}  // namespace

bool FusedOptimizer::has_codes(int64_t parameter) const {
  return pages_[static_cast<size_t>(first_pages_[static_cast<size_t>(parameter)])]
             .layout.num_blocks > 0;
}

NamedTensors FusedOptimizer::state_shapes(int64_t index) const {
  const Parameter& parameter = parameters_[static_cast<size_t>(index)];
  const bool codes = has_codes(index);
  const int num_tensors = slots_.slots[slots_.count - 1].tensor + 1;
  NamedTensors states, absmaxes;
  for (int tensor = 0; tensor < num_tensors; ++tensor) {
    int64_t rows = 0;
    for (int i = 0; i < slots_.count; ++i) rows += slots_.slots[i].tensor == tensor;
    const std::string number = std::to_string(tensor + 1);
    std::vector<int64_t> shape = parameter.value.sizes().vec();
    std::vector<int64_t> blocks = {num_state_blocks(parameter.value.numel())};
    if (rows > 1) {
      shape.insert(shape.begin(), rows);
      blocks.insert(blocks.begin(), rows);
    }
    states.emplace_back(parameter.name + ".state" + number,
                        at::empty(shape, at::dtype(codes ? at::kByte : at::kFloat)));
    if (codes)
      absmaxes.emplace_back(parameter.name + ".absmax" + number,
                            at::empty(blocks, at::dtype(at::kFloat)));
  }
  states.insert(states.end(), absmaxes.begin(), absmaxes.end());
  return states;
}

NamedTensors FusedOptimizer::state() const {
  NamedTensors state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    NamedTensors tensors = state_shapes(static_cast<int64_t>(i));
    for (int64_t p = first_pages_[i]; p < first_pages_[i + 1]; ++p) {
      const Page& page = pages_[static_cast<size_t>(p)];
      const at::Tensor bytes = pager_->read(p, page.layout.bytes);
      for (const Part& part :
           parts_of(page.layout, slots_, page.begin, parameters_[i].value.numel()))
        std::memcpy(static_cast<uint8_t*>(tensors[part.tensor].second.data_ptr()) + part.in_tensor,
                    bytes.const_data_ptr<uint8_t>() + part.in_page,
                    static_cast<size_t>(part.bytes));
    }
    state.insert(state.end(), tensors.begin(), tensors.end());
  }
  return state;
}

void FusedOptimizer::load_state(const NamedTensors& state, int64_t num_steps) {
  if (num_steps < 0)
    fail<FormatError>("optimizer state: the number of steps must be >= 0, got {}", num_steps);
  std::map<std::string, at::Tensor> given;
  for (const auto& [name, tensor] : state)
    if (!given.emplace(name, tensor).second)
      fail<FormatError>("optimizer state: '{}' is there twice", name);

  // Everything is checked before anything changes.
  std::vector<std::vector<at::Tensor>> found(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    for (const auto& [name, wanted] : state_shapes(static_cast<int64_t>(i))) {
      const auto it = given.find(name);
      if (it == given.end())
        fail<FormatError>(
            "optimizer state: '{}' is missing; was the checkpoint written with another optim.name "
            "or "
            "other lora.targets than {}?",
            name, options_.name);
      if (!it->second.defined() || it->second.scalar_type() != wanted.scalar_type() ||
          it->second.sizes() != wanted.sizes())
        fail<FormatError>("optimizer state: '{}' must be {}, got {}", name, describe(wanted),
                          it->second.defined() ? describe(it->second) : "nothing");
      found[i].push_back(it->second.to(at::kCPU).contiguous());
      check_values(name, found[i].back(), found[i].size() > 1 || !slots_.slots[0].negative);
      given.erase(it);
    }
  }
  if (!given.empty())
    fail<FormatError>("optimizer state: '{}' belongs to no trained parameter ({} such tensors)",
                      given.begin()->first, given.size());

  for (size_t p = 0; p < pages_.size(); ++p) {
    const Page& page = pages_[p];
    const auto& tensors = found[static_cast<size_t>(page.parameter)];
    const at::Tensor bytes = at::zeros({page.layout.bytes}, at::dtype(at::kByte));
    const int64_t numel = parameters_[static_cast<size_t>(page.parameter)].value.numel();
    for (const Part& part : parts_of(page.layout, slots_, page.begin, numel))
      std::memcpy(
          bytes.data_ptr<uint8_t>() + part.in_page,
          static_cast<const uint8_t*>(tensors[part.tensor].const_data_ptr()) + part.in_tensor,
          static_cast<size_t>(part.bytes));
    pager_->write(static_cast<int64_t>(p), bytes);
  }
  num_steps_ = num_steps;
}

}  // namespace qlora::optim
