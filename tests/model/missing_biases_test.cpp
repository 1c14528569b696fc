// Biases that the architecture has and the files leave out: those of linear layers, norms and the
// head are zero, as transformers 5 makes them; one that it draws at random must be there.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "export/merged.h"
#include "model/load.h"
#include "quant/tensor_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Biases everywhere, the last norm and the head among them.
constexpr const char* kPhi = R"({
    "model_type": "phi", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2,
    "partial_rotary_factor": 0.5, "max_position_embeddings": 128, "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5, "tie_word_embeddings": false})";

class MissingBiases : public testing::Test {
 protected:
  // Takes the biases whose names end so out of the model's file; the others become 0.25.
  void take_out(const std::vector<std::string>& ends) const {
    const std::string path = dir / "m/model.safetensors";
    quant::NamedTensors tensors = quant::read_tensors(path);
    std::erase_if(tensors, [&](const auto& entry) {
      return std::ranges::any_of(
          ends, [&](const std::string& end) { return entry.first.ends_with(end); });
    });
    for (auto& [name, value] : tensors)
      if (name.ends_with(".bias")) value.fill_(0.25);
    quant::write_tensors(path, tensors, {{"format", "pt"}});
  }

  std::unique_ptr<CausalLm> load() {
    testing::internal::CaptureStderr();
    auto model = load_model(*open_weights(dir / "m"), {}, {}, at::kCPU, at::kFloat);
    said = testing::internal::GetCapturedStderr();
    return model;
  }

  test::TempDir dir;
  std::string said;
};

bool is_zero(const at::Tensor& bias, int64_t size) {
  return bias.defined() && bias.sizes() == at::IntArrayRef{size} && at::all(bias == 0).item<bool>();
}

TEST_F(MissingBiases, OfTheHeadAndOfNormsAreZeroAndNamedInOneWarning) {
  test::write_made_directory(dir / "m", kPhi);
  take_out({"lm_head.bias", "final_layernorm.bias", "layers.1.input_layernorm.bias", "fc1.bias"});
  const auto model = load();
  EXPECT_TRUE(is_zero(model->head.layers().front().bias, 258));
  EXPECT_TRUE(is_zero(model->final_norm.frozen_bias, 64));
  EXPECT_TRUE(is_zero(model->layers[1].branches[0].before.frozen_bias, 64));
  EXPECT_TRUE(at::all(model->layers[0].branches[0].before.frozen_bias == 0.25).item<bool>());
  EXPECT_EQ(model->final_norm.frozen_bias.scalar_type(), at::kFloat);
  EXPECT_THAT(said, AllOf(HasSubstr("there is no "), HasSubstr("model.final_layernorm.bias"),
                          HasSubstr("(5 in all); taken as zero, as in transformers")));
  EXPECT_EQ(said.find("there is no"), said.rfind("there is no"));
}

TEST_F(MissingBiases, AreZeroInAModelThatStreamsBy) {
  test::write_made_directory(dir / "m", kPhi);
  take_out({"lm_head.bias", "final_layernorm.bias"});
  int found = 0;
  testing::internal::CaptureStderr();
  stream_model(*open_weights(dir / "m"), {}, {}, at::kCPU, {}, [&](const StreamedPart& part) {
    for (const auto& [name, value] : part.tensors) {
      if (name == "lm_head.bias") found += is_zero(value, 258);
      if (name == "model.final_layernorm.bias") found += is_zero(value, 64);
    }
  });
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("taken as zero"));
  EXPECT_EQ(found, 2);
}

TEST_F(MissingBiases, AMergedModelHasThem) {
  test::write_made_directory(dir / "m", kPhi);
  take_out({"lm_head.bias", "layernorm.bias", "dense.bias"});
  const auto model = load();
  const auto original = open_weights(dir / "m");
  std::filesystem::create_directory(dir / "merged");
  exporting::write_merged(dir / "merged", *model, *data::load_tokenizer(dir / "m"), nullptr,
                          dir / "m", at::kFloat, original.get());
  int zeros = 0, others = 0;
  for (const auto& [name, value] : quant::read_tensors(dir / "merged/model.safetensors"))
    if (name.ends_with(".bias")) (is_zero(value, value.size(0)) ? zeros : others) += 1;
  EXPECT_EQ(zeros, 1 + 3 + 2);  // of head, norms and o
  EXPECT_EQ(others, 2 * (3 + 2));
}

// transformers draws it: an answer would be another with each load.
TEST_F(MissingBiases, OfAGptOssRouterMustBeThere) {
  test::write_mxfp4_directory(dir / "m");
  take_out({"layers.1.mlp.router.bias"});
  EXPECT_THAT([&] { load_model(*open_weights(dir / "m"), {}, {}, at::kCPU, at::kFloat); },
              ThrowsMessage<FormatError>(HasSubstr("model.layers.1.mlp.router.bias")));
}

}  // namespace
}  // namespace qlora::model
