// GGUF files of families whose queries, keys and values lie in groups of heads: llama.cpp has all
// queries first, then all keys, then all values.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "io/gguf.h"
#include "model/families/family.h"
#include "model/gguf_names.h"
#include "model/load.h"
#include "tests/support/small_models.h"
#include "tests/support/temp_dir.h"

namespace qlora::model {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

using Metadata = std::vector<std::pair<std::string, io::GgufValue>>;

// Rows [key heads, queries of one + key + value, head_dim] as llama.cpp orders them.
at::Tensor queries_first(const at::Tensor& rows, const AttentionShape& shape) {
  const int64_t d = shape.head_dim, share = shape.share(), group = (share + 2) * d;
  std::vector<at::Tensor> queries, keys, values;
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    queries.push_back(rows.narrow(0, g * group, share * d));
    keys.push_back(rows.narrow(0, g * group + share * d, d));
    values.push_back(rows.narrow(0, g * group + (share + 1) * d, d));
  }
  return at::cat({at::cat(queries), at::cat(keys), at::cat(values)});
}

void write_gguf(const std::string& path, const Metadata& metadata,
                const quant::NamedTensors& tensors) {
  std::vector<io::TensorView> headers;
  for (const auto& [name, tensor] : tensors) {
    io::TensorView header;
    header.name = name;
    header.dtype = io::DType::kF32;
    header.shape = tensor.sizes().vec();
    headers.push_back(header);
  }
  io::GgufWriter writer(path, metadata, headers);
  for (const auto& [name, tensor] : tensors)
    writer.write(name, {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  writer.finish();
}

Metadata metadata_of(const std::string& name, const Architecture& a) {
  const AttentionShape& attention = a.block(0).attention().shape;
  const auto key = [&](const char* rest) { return name + "." + rest; };
  const auto number = [](int64_t value) { return static_cast<uint64_t>(value); };
  return {{"general.architecture", name},
          {key("context_length"), number(a.max_positions)},
          {key("embedding_length"), number(a.hidden_size)},
          {key("feed_forward_length"), number(a.block(0).mlp().inner)},
          {key("block_count"), number(a.num_layers())},
          {key("attention.head_count"), number(attention.heads)},
          {key("attention.head_count_kv"), number(attention.kv_heads)},
          {key("attention.layer_norm_epsilon"), 1e-5f}};
}

// The model as llama.cpp's converter writes it.
void write_gguf(const std::string& path, const CausalLm& model, const Metadata& metadata) {
  const GgufNames names(model.architecture());
  quant::NamedTensors tensors;
  for (const auto& [name, tensor] : model.frozen_state()) {
    const GgufTensor stored = names.of_tensor(name);
    const bool in_groups = stored.rows == RowOrder::kQueriesThenKeys;
    tensors.emplace_back(stored.name,
                         in_groups ? queries_first(tensor, stored.attention) : tensor.contiguous());
  }
  write_gguf(path, metadata, tensors);
}

void expect_same_model(const test::SmallModel& small, const std::string& name,
                       const Metadata& more = {}) {
  const test::TempDir dir;
  const auto model = small.load();
  Metadata metadata = metadata_of(name, model->architecture());
  metadata.insert(metadata.end(), more.begin(), more.end());
  write_gguf(dir / "model.gguf", *model, metadata);
  const auto source = open_weights(dir / "model.gguf");
  const auto found = load_model(*source, {}, {}, at::kCPU, at::kFloat);
  EXPECT_THAT(source->unread(), IsEmpty());
  const quant::NamedTensors wanted = model->frozen_state(), read = found->frozen_state();
  ASSERT_EQ(read.size(), wanted.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].first, wanted[i].first);
    EXPECT_TRUE(at::equal(read[i].second, wanted[i].second)) << wanted[i].first;
  }
}

TEST(ClassicGguf, RowsOfEachHeadComeBackBesideEachOtherWithTheirBiases) {
  expect_same_model(
      test::small_gpt_neox(), "gptneox",
      {{"gptneox.rope.dimension_count", uint64_t{4}}, {"gptneox.use_parallel_residual", true}});
  expect_same_model(test::small_bloom(), "bloom");
}

TEST(ClassicGguf, RowsOfHeadsThatShareAKeyComeBackInTheirGroup) {
  expect_same_model(test::small_falcon(), "falcon");
}

TEST(ClassicGguf, PositionsAreReadAndMatricesAreOutputsByInputs) {
  expect_same_model(test::small_gpt2(), "gpt2");
}

// 0: MPT with learned positions.
TEST(ClassicGguf, MptWithOtherSlopesIsRefused) {
  const test::TempDir dir;
  const Architecture a = test::described({{"model_type", "mpt"}, {"d_model", 32}, {"n_heads", 4}});
  const auto read = [&](float largest) {
    Metadata metadata = metadata_of("mpt", a);
    metadata.emplace_back("mpt.attention.max_alibi_bias", largest);
    metadata.emplace_back("mpt.attention.clamp_kqv", 0.5f);
    write_gguf(dir / "mpt.gguf", metadata, {{"token_embd.weight", at::zeros({61, 32})}});
    return read_architecture(io::GgufFile(dir / "mpt.gguf"));
  };
  const Architecture found = read(8);
  EXPECT_EQ(found.block(0).attention().clamp, 0.5);
  EXPECT_EQ(found.alibi.slopes, a.alibi.slopes);
  for (const float other : {0.0f, 16.0f})
    EXPECT_THAT([&] { read(other); },
                ThrowsMessage<FormatError>(
                    AllOf(HasSubstr("mpt.gguf"), HasSubstr("mpt.attention.max_alibi_bias"))));
}

}  // namespace
}  // namespace qlora::model
