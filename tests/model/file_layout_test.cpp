#include "model/file_layout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/small_models.h"

namespace qlora::model {
namespace {

FileLayout layout_of(const test::SmallModel& model) {
  return FileLayout(test::described(model.config));
}

TEST(FileLayout, TheHeadOfGptNeoxHasAnotherNameInFiles) {
  const FileLayout layout = layout_of(test::small_gpt_neox());
  for (const char* part : {".weight", ".bias", ".weight.absmax"}) {
    EXPECT_EQ(layout.in_files("lm_head" + std::string(part)), "embed_out" + std::string(part));
    EXPECT_EQ(layout.in_model("embed_out" + std::string(part)), "lm_head" + std::string(part));
  }
  for (const std::string other :
       {"gpt_neox.embed_in.weight", "gpt_neox.layers.0.attention.dense.weight", "lm_headed.weight",
        "embed_outer.weight"}) {
    EXPECT_EQ(layout.in_files(other), other);
    EXPECT_EQ(layout.in_model(other), other);
  }
}

// The tensors of the file tell which are matrices of inputs by outputs: those of the layers.
TEST(FileLayout, EveryMatrixOfGpt2sLayersIsInputsByOutputs) {
  const test::SmallModel gpt2 = test::small_gpt2();
  const FileLayout layout = layout_of(gpt2);
  int64_t matrices = 0;
  for (const auto& [name, tensor] : gpt2.tensors) {
    const bool of_layer = name.starts_with("transformer.h.") && tensor.dim() == 2;
    EXPECT_EQ(layout.is_by_inputs(name), of_layer) << name;
    EXPECT_TRUE(at::equal(layout.in_files(name, tensor), of_layer ? tensor.t() : tensor)) << name;
    matrices += of_layer;
  }
  EXPECT_EQ(matrices, 2 * 4);
}

TEST(FileLayout, PackedBytesAndTheirScalesStayAsTheyAre) {
  const FileLayout layout = layout_of(test::small_gpt2());
  const std::string weight = "transformer.h.1.mlp.c_fc.weight";
  for (const at::Tensor& packed :
       {at::arange(6, at::kByte).view({6, 1}), at::arange(6, at::kChar).view({2, 3})})
    EXPECT_TRUE(at::equal(layout.in_files(weight, packed), packed));
  const at::Tensor scales = at::arange(6, at::kFloat).view({2, 3});
  for (const char* part : {".absmax", ".quant_map"})
    EXPECT_TRUE(at::equal(layout.in_files(weight + part, scales), scales));
}

TEST(FileLayout, OtherFamiliesHaveTheirFilesAsTheirModules) {
  for (const test::SmallModel& model : {test::small_opt_350m(), test::small_bloom(),
                                        test::small_gptj(), test::small_ministral3(0.1)}) {
    const FileLayout layout = layout_of(model);
    for (const auto& [name, tensor] : model.tensors) {
      EXPECT_EQ(layout.in_files(name), name);
      EXPECT_EQ(layout.in_model(name), name);
      EXPECT_FALSE(layout.is_by_inputs(name)) << name;
    }
  }
}

}  // namespace
}  // namespace qlora::model
