// A frozen weight that lies elsewhere (quant/offload/offload.h), in any format: it is fetched with
// the rest of its block when a product asks for it. device() is where products are made; state() is
// read from home, or, of one that was dealt to the ranks, a copy in the host's memory.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/tensor_view.h"
#include "quant/frozen_weight.h"
#include "quant/offload/offload.h"

namespace qlora::quant {

// Where a tensor of the weight, by its name in state(), lies in the model's file; null: nowhere.
using FindInFile = std::function<const io::TensorView*(const std::string& name)>;

// `view`, which may be null, if it holds the very bytes of the tensor, as a tensor can lie there;
// else null.
const io::TensorView* holding_the_same(const at::Tensor& tensor, const io::TensorView* view);

class OffloadedWeight final : public FrozenWeight {
 public:
  // Moves the weight's tensors home, to kHost or kDisk; with kRanks, whose ranks all make it, they
  // go when their block is dealt (Offload::deal()). On disk those whose very bytes `find` has stay
  // in that file, the others are appended to that of `offload`.
  OffloadedWeight(std::unique_ptr<FrozenWeight> weight, std::shared_ptr<Offload> offload,
                  int64_t block, Home home, const FindInFile& find = {});
  ~OffloadedWeight() override;

  int64_t num_experts() const override { return weight_->num_experts(); }
  int64_t out_features() const override { return weight_->out_features(); }
  int64_t in_features() const override { return weight_->in_features(); }
  at::Device device() const override { return offload_->device(); }
  std::string format() const override { return weight_->format(); }
  WeightTraits traits() const override { return weight_->traits(); }
  int64_t bytes() const override { return weight_->bytes(); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  at::Tensor stored_rows(at::ScalarType dtype, int64_t expert) const override;
  std::optional<Int8Factor> int8_factor(int64_t expert) const override;
  std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const override;
  NamedTensors state() const override;
  // Another weight in the place of this one, which does not lie in kRanks.
  std::unique_ptr<FrozenWeight> replaced_by(std::unique_ptr<FrozenWeight> weight) const;
  std::vector<at::Tensor*> parts() override { return weight_->parts(); }

 private:
  const FrozenWeight& fetched() const;

  std::unique_ptr<FrozenWeight> weight_;
  std::shared_ptr<Offload> offload_;
  int64_t block_;
  Home home_;
  std::vector<OffloadedPart> parts_;
};

// Whether several threads may decode it at a time: not where its bytes are fetched for that, or
// where it multiplies alone.
bool serves_many_threads(const FrozenWeight& weight);

// `weight`, moved to where `before` lies.
std::unique_ptr<FrozenWeight> placed_as(const FrozenWeight& before,
                                        std::unique_ptr<FrozenWeight> weight);

}  // namespace qlora::quant
