#include "quant/tensor_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "tests/support/temp_dir.h"

namespace qlora::quant {
namespace {

TEST(TensorFile, RowsAreThoseOfTheWholeTensorInItsType) {
  const test::TempDir dir;
  const at::Tensor floats = at::arange(7 * 6, at::kFloat).view({7, 6});
  const NamedTensors tensors = {{"floats", floats},
                                {"halves", floats.to(at::kBFloat16)},
                                {"cubes", floats.view({7, 2, 3})},
                                {"numbers", floats.flatten().narrow(0, 0, 5)}};
  write_tensors(dir / "t.safetensors", tensors);
  const io::TensorFile file = io::read_safetensors(dir / "t.safetensors");
  for (const auto& [name, whole] : tensors) {
    EXPECT_TRUE(at::equal(rows_of(file.at(name), 2, 3), whole.narrow(0, 2, 3))) << name;
    EXPECT_EQ(rows_of(file.at(name), 2, 3).scalar_type(), whole.scalar_type()) << name;
    // Again, now that the pages were dropped.
    EXPECT_TRUE(at::equal(rows_of(file.at(name), 0, 5), whole.narrow(0, 0, 5))) << name;
    EXPECT_EQ(rows_of(file.at(name), 1, 0).numel(), 0) << name;
  }
}

TEST(TensorFile, ALargeTensorIsCopiedWholeAndMayBeReadAgain) {
  const test::TempDir dir;
  const at::Tensor large = at::arange(3'000'001, at::kFloat);  // 12 MB, in pieces of 4
  write_tensors(dir / "t.safetensors", {{"small", at::ones({3})}, {"large", large}});
  const io::TensorFile file = io::read_safetensors(dir / "t.safetensors");
  for (int time = 0; time < 2; ++time) {
    EXPECT_TRUE(at::equal(copy_from_file(file.at("large")), large));
    EXPECT_TRUE(at::equal(copy_from_file(file.at("small")), at::ones({3})));
  }
  EXPECT_TRUE(at::equal(tensor_of(file.at("large")), large));
}

}  // namespace
}  // namespace qlora::quant
