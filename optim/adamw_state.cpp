// State of AdamW to and from named tensors.
#include <ATen/ATen.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "optim/adamw.h"

namespace qlora::optim {
namespace {

// Where one part of a page (a state or its absmax) lies in the page and in the parameter's tensor,
// in bytes.
struct Part {
  int64_t in_page, in_tensor, bytes;
};

std::vector<Part> parts_of(const StateLayout& layout, int64_t begin) {
  const int64_t states = layout.count * layout.element_bytes, at = begin * layout.element_bytes;
  std::vector<Part> parts = {{0, at, states}, {layout.state2, at, states}};
  if (layout.num_blocks > 0) {
    const int64_t block = begin / kStateBlock * 4;
    parts.push_back({layout.absmax1, block, layout.num_blocks * 4});
    parts.push_back({layout.absmax2, block, layout.num_blocks * 4});
  }
  return parts;
}

std::string describe(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", at::toString(tensor.scalar_type()),
                     fmt::join(tensor.sizes().vec(), ", "));
}

// Every fp32 part but the first moment is >= 0 by construction, and no part is ever infinite in a
// healthy run.
void check_values(const std::string& name, const at::Tensor& tensor, bool non_negative) {
  if (tensor.scalar_type() != at::kFloat) return;
  const bool good = at::isfinite(tensor).all().item<bool>() &&
                    (!non_negative || (tensor >= 0).all().item<bool>());
  if (!good)
    fail<FormatError>("optimizer state: '{}' must hold finite numbers{}; the checkpoint is damaged",
                      name, non_negative ? " >= 0" : "");
}

}  // namespace

bool AdamW::has_codes(int64_t parameter) const {
  return pages_[static_cast<size_t>(first_pages_[static_cast<size_t>(parameter)])]
             .layout.num_blocks > 0;
}

NamedTensors AdamW::state_shapes(int64_t index) const {
  const Parameter& parameter = parameters_[static_cast<size_t>(index)];
  const auto states = at::dtype(has_codes(index) ? at::kByte : at::kFloat);
  NamedTensors tensors = {{parameter.name + ".state1", at::empty(parameter.value.sizes(), states)},
                          {parameter.name + ".state2", at::empty(parameter.value.sizes(), states)}};
  if (has_codes(index))
    for (const char* suffix : {".absmax1", ".absmax2"})
      tensors.emplace_back(
          parameter.name + suffix,
          at::empty({num_state_blocks(parameter.value.numel())}, at::dtype(at::kFloat)));
  return tensors;
}

NamedTensors AdamW::state() const {
  NamedTensors state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    NamedTensors tensors = state_shapes(static_cast<int64_t>(i));
    for (int64_t p = first_pages_[i]; p < first_pages_[i + 1]; ++p) {
      const Page& page = pages_[static_cast<size_t>(p)];
      const at::Tensor bytes = pager_->read(p, page.layout.bytes);
      const std::vector<Part> parts = parts_of(page.layout, page.begin);
      for (size_t k = 0; k < parts.size(); ++k)
        std::memcpy(static_cast<uint8_t*>(tensors[k].second.data_ptr()) + parts[k].in_tensor,
                    bytes.const_data_ptr<uint8_t>() + parts[k].in_page,
                    static_cast<size_t>(parts[k].bytes));
    }
    state.insert(state.end(), tensors.begin(), tensors.end());
  }
  return state;
}

void AdamW::load_state(const NamedTensors& state, int64_t num_steps) {
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
      check_values(name, found[i].back(), found[i].size() > 1);
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
    const std::vector<Part> parts = parts_of(page.layout, page.begin);
    for (size_t k = 0; k < parts.size(); ++k)
      std::memcpy(bytes.data_ptr<uint8_t>() + parts[k].in_page,
                  static_cast<const uint8_t*>(tensors[k].const_data_ptr()) + parts[k].in_tensor,
                  static_cast<size_t>(parts[k].bytes));
    pager_->write(static_cast<int64_t>(p), bytes);
  }
  num_steps_ = num_steps;
}

}  // namespace qlora::optim
