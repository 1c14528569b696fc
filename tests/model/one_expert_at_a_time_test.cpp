// Experts come from the model's files one by one, whether the files stack them or not.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <span>

#include "model/expert_tensors.h"
#include "model/load.h"
#include "tests/support/stored_layer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_files.h"

namespace qlora::model {
namespace {
using testing::IsEmpty;

// Another source, with a record of what it reads. A matrix of an expert must come by itself, after
// the one before has been given up.
class RecordingSource final : public WeightSource {
 public:
  explicit RecordingSource(const std::string& path) : source_(open_weights(path)) {
    architecture_ = source_->architecture();
    place_ = source_->place();
  }

  // How often each matrix of an expert was read, by its name.
  const std::map<std::string, int>& reads() const { return reads_; }

  bool has(const std::string& name) const override { return source_->has(name); }
  at::Tensor read(const std::string& name, const std::vector<int64_t>& shape,
                  at::ScalarType dtype) override {
    if (!is_expert(name)) return source_->read(name, shape, dtype);
    note(name);
    const at::Tensor tensor = source_->read(name, shape, dtype);
    EXPECT_EQ(tensor.sizes(), at::IntArrayRef(shape)) << name;
    EXPECT_EQ(tensor.storage().nbytes(), tensor.nbytes()) << name << " is a part of more";
    before_ = tensor.storage().getWeakStorageImpl();
    return tensor;
  }
  std::unique_ptr<quant::FrozenWeight> read_packed(const std::string& module, int64_t out,
                                                   int64_t in,
                                                   const quant::QuantizationOptions& options,
                                                   at::Device device) override {
    auto weight = source_->read_packed(module, out, in, options, device);
    if (weight && is_expert(module + ".weight")) note(module + ".weight");
    return weight;
  }
  at::ScalarType dtype() const override { return source_->dtype(); }
  std::string packing(const std::string& module) const override { return source_->packing(module); }
  std::vector<std::string> unread() const override { return source_->unread(); }

 private:
  bool is_expert(const std::string& name) const {
    return name.ends_with(".weight") && expert_tensor(architecture_, name);
  }
  void note(const std::string& name) {
    EXPECT_TRUE(!before_ || before_->expired()) << "something is still there at " << name;
    ++reads_[name];
  }

  std::unique_ptr<WeightSource> source_;
  std::map<std::string, int> reads_;
  std::optional<c10::weak_intrusive_ptr<c10::StorageImpl>> before_;  // what was read last
};

// Both matrices of each expert of each layer, once.
std::map<std::string, int> once_each(const Architecture& a) {
  std::map<std::string, int> all;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    for (const Branch& branch : a.block(layer).branches)
      if (const ExpertsSpec* experts = branch.experts())
        for (int64_t expert = 0; expert < experts->routing.experts; ++expert)
          for (const LinearSpec* linear : {&experts->gate_up, &experts->down})
            all[numbered(a.module(layer, linear->names), expert) + ".weight"] = 1;
  return all;
}

void expect_one_at_a_time(const std::string& path, const std::string& method) {
  SCOPED_TRACE(path + ", " + method);
  RecordingSource source(path);
  quant::QuantizationOptions quantization;
  quantization.method = method;
  const auto model = load_model(source, {}, quantization, at::kCPU, at::kFloat);
  const std::map<std::string, int> wanted = once_each(source.architecture());
  EXPECT_EQ(wanted.size(), 2U * 4 * 2);  // two layers of four experts
  EXPECT_EQ(source.reads(), wanted);
  EXPECT_THAT(source.unread(), IsEmpty());
}

std::string config_of(const std::string& model_type) {
  return R"({"model_type": ")" + model_type + R"(", "vocab_size": 258, "hidden_size": 64,
    "intermediate_size": 32, "head_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
    "tie_word_embeddings": false})";
}

TEST(OneExpertAtATime, OfAFileForEachAndOfStacks) {
  const test::TempDir dir;
  // A matrix for each of w1, w2 and w3; stacks of outputs by inputs; stacks of inputs by outputs.
  for (const std::string model_type : {"mixtral", "granitemoe", "gpt_oss"}) {
    test::write_made_directory(dir / model_type, config_of(model_type));
    expect_one_at_a_time(dir / model_type, "nf4");
  }
  test::write_made_gguf(dir / "mixtral.gguf", config_of("mixtral"));
  expect_one_at_a_time(dir / "mixtral.gguf", "nf4");
}

TEST(OneExpertAtATime, OfWeightsThatStayAsTheFileHasThem) {
  const test::TempDir dir;
  test::write_mxfp4_directory(dir / "mxfp4");
  expect_one_at_a_time(dir / "mxfp4", "as_stored");
  expect_one_at_a_time(dir / "mxfp4", "nf4");
  test::write_made_gguf(dir / "mixtral.gguf", config_of("mixtral"));
  expect_one_at_a_time(dir / "mixtral.gguf", "as_stored");
}

constexpr int64_t kExperts = 3, kInner = 32, kHidden = 96;

ExpertsSpec stacked_spec(bool by_inputs) {
  ExpertsSpec spec;
  spec.routing.experts = kExperts;
  spec.gate_up.out = 2 * kInner;
  spec.gate_up.in = kHidden;
  spec.down.out = kHidden;
  spec.down.in = kInner;
  spec.files.stacked_gate_up = "experts.gate_up_proj";
  spec.files.stacked_down = "experts.down_proj";
  spec.files.stacked_by_inputs = by_inputs;
  return spec;
}

using Parts = ExpertParts (*)(const ExpertTensor& tensor, const FindView& find);

// Each byte of the file's tensors is of one expert.
void expect_parts_cover(const quant::NamedTensors& stacks, const ExpertsSpec& spec, Parts parts) {
  const io::TensorFile file = test::stored_file(stacks);
  std::map<std::string, std::vector<std::span<const std::byte>>> read;
  for (int64_t expert = 0; expert < kExperts; ++expert)
    for (const bool is_gate_up : {true, false}) {
      const ExpertTensor tensor{&spec, "layer.", "layer.", expert, is_gate_up, false};
      for (const io::TensorView& view :
           parts(tensor, [&](const std::string& name) { return file.find(name); }).views)
        read[view.name].push_back(view.bytes);
    }
  ASSERT_EQ(read.size(), stacks.size());
  for (auto& [name, spans] : read) {
    const std::span<const std::byte> stack = file.find(name)->bytes;
    EXPECT_EQ(spans.size(), static_cast<size_t>(kExperts)) << name;
    const std::byte* end = stack.data();
    for (const std::span<const std::byte> span : spans) {
      EXPECT_EQ(span.data(), end) << name;
      end = span.data() + span.size();
    }
    EXPECT_EQ(end, stack.data() + stack.size()) << name;
  }
}

TEST(OneExpertAtATime, EachTakesItsOwnBytesOfAStack) {
  const at::Tensor gate_up = at::zeros({kExperts, 2 * kInner, kHidden}, at::kHalf),
                   down = at::zeros({kExperts, kHidden, kInner}, at::kHalf);
  const std::string name = "layer.experts.";
  expect_parts_cover({{name + "gate_up_proj", gate_up}, {name + "down_proj", down}},
                     stacked_spec(false), in_hugging_face);
  expect_parts_cover({{name + "gate_up_proj", gate_up.transpose(1, 2).contiguous()},
                      {name + "down_proj", down.transpose(1, 2).contiguous()}},
                     stacked_spec(true), in_hugging_face);
  const at::Tensor half = at::zeros({kExperts, kInner, kHidden}, at::kHalf);
  expect_parts_cover({{"layer.ffn_gate_exps.weight", half},
                      {"layer.ffn_up_exps.weight", half.clone()},
                      {"layer.ffn_down_exps.weight", down}},
                     stacked_spec(false), in_gguf);
}

}  // namespace
}  // namespace qlora::model
