// Weights that make their own products: on the host in float32, or panel by panel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "base/error.h"
#include "io/spill_file.h"
#include "lora/stacked_weights.h"
#include "quant/offload/host_weight.h"
#include "quant/offload/offloaded_weight.h"
#include "quant/offload/panel_weight.h"
#include "quant/products/product.h"
#include "tests/support/temp_dir.h"

namespace qlora::quant {
namespace {

at::Tensor made(int64_t rows, int64_t columns, double scale) {
  return (at::arange(rows * columns, at::kFloat).remainder(53) - 26)
      .mul(scale / 26)
      .view({rows, columns});
}

std::unique_ptr<HostWeight> on_host(const at::Tensor& weight) {
  return std::make_unique<HostWeight>(std::make_unique<DenseWeight>(weight), at::kCPU);
}

TEST(HostWeight, ProductsOf16BitNumbersAreThoseOfFloat32RoundedOnce) {
  const at::Tensor w = made(48, 64, 0.3), x = made(20, 64, 1).to(at::kBFloat16);
  const auto weight = on_host(w);
  Workspace workspace;
  const at::Tensor exact = product(x.to(at::kFloat), w.t());
  EXPECT_TRUE(at::equal(weight->forward(x, workspace), exact.to(at::kBFloat16)));
  const at::Tensor begun = made(20, 48, 0.7).to(at::kBFloat16);
  at::Tensor y = begun.clone();
  weight->forward_into(x, y, true, workspace);
  EXPECT_TRUE(at::equal(y, (begun.to(at::kFloat) + exact).to(at::kBFloat16)));
}

TEST(HostWeight, SoAreInputGradients) {
  const at::Tensor w = made(48, 64, 0.3), dy = made(20, 48, 1).to(at::kBFloat16);
  Workspace workspace;
  at::Tensor dx = at::empty({20, 64}, at::kBFloat16);
  on_host(w)->input_gradient_into(dy, dx, false, workspace);
  EXPECT_TRUE(at::equal(dx, product(dy.to(at::kFloat), w).to(at::kBFloat16)));
}

TEST(HostWeight, ItsWeightMayLieOnDisk) {
  const test::TempDir dir;
  const auto offload =
      std::make_shared<Offload>(at::kCPU, std::make_shared<io::SpillFile>(dir.path(), 0));
  const at::Tensor w = made(48, 64, 0.3), x = made(20, 64, 1);
  const HostWeight weight(std::make_unique<OffloadedWeight>(
                              std::make_unique<DenseWeight>(w.clone()), offload, 0, Home::kDisk),
                          at::kCPU);
  Workspace workspace;
  EXPECT_TRUE(at::equal(weight.forward(x, workspace), on_host(w)->forward(x, workspace)));
  EXPECT_TRUE(at::equal(weight.state().front().second, w));
}

TEST(HostWeight, AnotherWeightTakesItsPlaceOnTheHost) {
  const auto before = on_host(made(48, 64, 0.3));
  const at::Tensor other = made(48, 64, 0.1);
  const auto after = placed_as(*before, std::make_unique<DenseWeight>(other));
  EXPECT_NE(dynamic_cast<const HostWeight*>(after.get()), nullptr);
  EXPECT_TRUE(at::equal(after->state().front().second, other));
}

TEST(OwnProducts, NoRouteTakesSuchAWeightsRows) {
  for (const bool in_panels : {false, true}) {
    lora::LoraLinear layer;
    layer.name = "w";
    const at::Tensor w = made(48, 64, 0.3);
    if (in_panels)
      layer.base = std::make_unique<PanelWeight>(w, at::kCPU, false);
    else
      layer.base = on_host(w);
    std::vector<lora::LoraLinear> layers;
    layers.push_back(std::move(layer));
    for (const int64_t rows : {1, 64})
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const ProductFacts facts =
            lora::product_facts(layers, made(rows, 64, 1).to(dtype), /*sums=*/true);
        EXPECT_EQ(product_route(facts, Pass::kForward).run, ProductRun::kEach) << rows;
        EXPECT_EQ(product_route(facts, Pass::kBackward).run, ProductRun::kEach) << rows;
      }
  }
}

// Of more rows than a panel has: 600 KB a row.
class Panels : public ::testing::Test {
 protected:
  static constexpr int64_t kIn = 150'000, kOut = 130;

  Panels() {
    EXPECT_GT(w_.nbytes(), 2 * static_cast<size_t>(kPanelBytes));
    file_ = std::make_shared<io::SpillFile>(dir_.path(), 0);
  }
  // The same bytes in a mapped file.
  at::Tensor mapped() {
    Offload offload(at::kCPU, file_);
    at::Tensor home = w_.clone();
    offload.keep(home, Home::kDisk, {}, nullptr);
    return home;
  }

  const at::Tensor w_ = made(kOut, kIn, 0.02);
  test::TempDir dir_;
  std::shared_ptr<io::SpillFile> file_;
  Workspace workspace_;
};

TEST_F(Panels, ProductsAreThoseOfTheWholeMatrix) {
  const DenseWeight whole(w_);
  const at::Tensor x = made(16, kIn, 0.1), dy = made(16, kOut, 1);
  at::Tensor dx = at::empty({16, kIn});
  whole.input_gradient_into(dy, dx, false, workspace_);
  const at::Tensor y = whole.forward(x, workspace_);
  for (const bool in_file : {false, true}) {
    const PanelWeight panels(in_file ? mapped() : w_, at::kCPU, in_file);
    EXPECT_TRUE(at::allclose(panels.forward(x, workspace_), y, 1e-5, 1e-5)) << in_file;
    at::Tensor begun = at::ones_like(dx);
    panels.input_gradient_into(dy, begun, true, workspace_);
    EXPECT_TRUE(at::allclose(begun, dx + 1, 1e-5, 1e-5)) << in_file;
  }
}

TEST_F(Panels, RowsAndStateAreTheMatrixs) {
  const PanelWeight panels(mapped(), at::kCPU, true);
  at::Tensor rows = at::empty({3, kIn});
  panels.dequantize_rows(0, 100, 103, rows);
  EXPECT_TRUE(at::equal(rows, w_.narrow(0, 100, 3)));
  EXPECT_TRUE(at::equal(panels.state().front().second, w_));
  EXPECT_EQ(panels.bytes(), static_cast<int64_t>(w_.nbytes()));
  EXPECT_EQ(panels.format(), "float32");
  EXPECT_THROW(panels.dequantize_rows(0, 129, 131, rows), Error);
}

TEST_F(Panels, A16BitSumOverPanelsIsRoundedAsThatOfTheWholeMatrix) {
  const at::Tensor dy = made(16, kOut, 1).to(at::kBFloat16);
  const PanelWeight panels(w_.to(at::kBFloat16).repeat({2, 1}).contiguous(), at::kCPU, false);
  const at::Tensor twice = at::cat({dy, dy}, 1);
  at::Tensor dx = at::empty({16, kIn}, at::kBFloat16);
  panels.input_gradient_into(twice, dx, false, workspace_);
  const at::Tensor exact = product(dy.to(at::kFloat), w_.to(at::kBFloat16).to(at::kFloat)).mul_(2);
  // Of the result, and of the shares of three panels where a library multiplies: half a unit in the
  // last place each, 2^-9; a share may be somewhat larger than the sum.
  const double scale = exact.abs().max().item<double>();
  EXPECT_LT((dx.to(at::kFloat) - exact).abs().max().item<double>(), 2 * (1 + 3) * scale * 0x1p-9);
}

}  // namespace
}  // namespace qlora::quant
