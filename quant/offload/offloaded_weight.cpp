#include "quant/offload/offloaded_weight.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "base/error.h"
#include "quant/offload/host_weight.h"
#include "quant/offload/panel_weight.h"

namespace qlora::quant {
namespace {

// What is stored under the name that state() has for this tensor, if it is the very same.
const io::TensorView* same_in_file(const at::Tensor& part, const NamedTensors& state,
                                   const FindInFile& find) {
  const auto named = std::ranges::find_if(state, [&](const auto& entry) {
    return entry.second.const_data_ptr() == part.const_data_ptr() &&
           entry.second.nbytes() == part.nbytes();
  });
  return named == state.end() || !find ? nullptr : holding_the_same(part, find(named->first));
}

}  // namespace

const io::TensorView* holding_the_same(const at::Tensor& tensor, const io::TensorView* view) {
  if (view == nullptr || view->owner == nullptr || view->bytes.size() != tensor.nbytes())
    return nullptr;
  const bool is_aligned =
      reinterpret_cast<uintptr_t>(view->bytes.data()) % tensor.element_size() == 0;
  const at::Tensor bytes = tensor.cpu();
  const bool same =
      std::memcmp(view->bytes.data(), bytes.const_data_ptr(), view->bytes.size()) == 0;
  return is_aligned && same ? view : nullptr;
}

OffloadedWeight::OffloadedWeight(std::unique_ptr<FrozenWeight> weight,
                                 std::shared_ptr<Offload> offload, int64_t block, Home home,
                                 const FindInFile& find)
    : weight_(std::move(weight)), offload_(std::move(offload)), block_(block), home_(home) {
  const NamedTensors state = home == Home::kDisk ? weight_->state() : NamedTensors();
  for (at::Tensor* part : weight_->parts()) {
    if (!part->defined() || part->numel() == 0) continue;
    const io::TensorView* view = same_in_file(*part, state, find);
    parts_.push_back(offload_->keep(*part, home, view ? view->bytes : std::span<const std::byte>(),
                                    view ? view->owner : nullptr));
  }
  offload_->add(block_, &parts_);
}

OffloadedWeight::~OffloadedWeight() { offload_->remove(block_, &parts_); }

const FrozenWeight& OffloadedWeight::fetched() const {
  offload_->use(block_);
  return *weight_;
}

void OffloadedWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                      at::Tensor& out) const {
  fetched().dequantize_rows(expert, begin, end, out);
}

at::Tensor OffloadedWeight::stored_rows(at::ScalarType dtype, int64_t expert) const {
  return traits().kind == WeightKind::kStored ? fetched().stored_rows(dtype, expert) : at::Tensor();
}

std::optional<Int8Factor> OffloadedWeight::int8_factor(int64_t expert) const {
  return traits().kind == WeightKind::kInt8 ? fetched().int8_factor(expert) : std::nullopt;
}

std::unique_ptr<RowsProduct> OffloadedWeight::rows_product(const at::Tensor& x,
                                                           int64_t expert) const {
  return fetched().rows_product(x, expert);
}

NamedTensors OffloadedWeight::state() const {
  if (home_ == Home::kRanks) {
    if (!offload_->is_dealt(block_)) return weight_->state();
    NamedTensors all = fetched().state();
    // The slot they lie in is soon another block's.
    for (auto& [name, tensor] : all) tensor = tensor.is_cpu() ? tensor.clone() : tensor.cpu();
    return all;
  }
  offload_->leave(block_);
  return weight_->state();
}

std::unique_ptr<FrozenWeight> OffloadedWeight::replaced_by(
    std::unique_ptr<FrozenWeight> weight) const {
  check(home_ != Home::kRanks, "OffloadedWeight: a weight that ranks keep together stays as it is");
  return std::make_unique<OffloadedWeight>(std::move(weight), offload_, block_, home_);
}

bool serves_many_threads(const FrozenWeight& weight) {
  return dynamic_cast<const OffloadedWeight*>(&weight) == nullptr && !weight.multiplies_alone();
}

std::unique_ptr<FrozenWeight> placed_as(const FrozenWeight& before,
                                        std::unique_ptr<FrozenWeight> weight) {
  if (const auto* elsewhere = dynamic_cast<const OffloadedWeight*>(&before))
    return elsewhere->replaced_by(std::move(weight));
  if (const auto* on_host = dynamic_cast<const HostWeight*>(&before))
    return on_host->replaced_by(std::move(weight));
  if (const auto* in_panels = dynamic_cast<const PanelWeight*>(&before))
    return in_panels->replaced_by(*weight);
  return weight;
}

}  // namespace qlora::quant
