#include "model/made_weights.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <set>

namespace qlora::model {
namespace {

class MadeWeights final : public WeightSource {
 public:
  MadeWeights(const Architecture& architecture, PackedMaker packed) : packed_(std::move(packed)) {
    architecture_ = architecture;
    place_ = "made weights";
    for_each_linear(architecture, [this](const std::string& module, const LinearSpec& linear) {
      if (!linear.bias) without_bias_.insert(module + ".bias");
    });
  }
  bool has(const std::string& name) const override { return !without_bias_.contains(name); }
  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    if (shape.size() == 1)
      return name.ends_with(".bias") ? at::zeros(shape, dtype) : at::ones(shape, dtype);
    // Drawing every number would take longer than what is to be measured.
    constexpr int64_t kDrawnRows = 64;
    const int64_t drawn = std::min(shape[0], kDrawnRows), times = (shape[0] + drawn - 1) / drawn;
    const at::Tensor rows =
        at::empty({drawn, shape[1]}, at::kFloat).normal_(0.0, 0.02, generator_).to(dtype);
    return rows.repeat({times, 1}).narrow(0, 0, shape[0]).contiguous();
  }
  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in, const quant::QuantizationOptions&,
                                                   at::Device device) override {
    return packed_ ? packed_(module, out, in, device) : nullptr;
  }
  at::ScalarType dtype() const override { return at::kBFloat16; }
  std::string packing(const std::string&) const override { return ""; }
  std::vector<std::string> unread() const override { return {}; }

 private:
  PackedMaker packed_;
  std::set<std::string> without_bias_;
  at::Generator generator_ = at::make_generator<at::CPUGeneratorImpl>(1);  // not the program's
};

}  // namespace

std::unique_ptr<WeightSource> made_weights(const Architecture& architecture,
                                           const PackedMaker& packed) {
  return std::make_unique<MadeWeights>(architecture, packed);
}

}  // namespace qlora::model
