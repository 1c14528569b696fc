// Whole models of one layer against a few lines of ATen. Each token is a document of its own, so
// that attention gives it its own value: out(v(x)).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/support/small_models.h"
#include "tests/support/tiny_model.h"

namespace qlora::model {
namespace {
using test::SmallModel;

// The modules of a small model in ATen's operations, by their names below a prefix.
class Modules {
 public:
  Modules(const SmallModel& model, std::string prefix)
      : model_(model), prefix_(std::move(prefix)) {}

  at::Tensor operator()(const std::string& name) const { return model_.at(prefix_ + name); }
  at::Tensor norm(const std::string& name, const at::Tensor& x) const {
    return at::layer_norm(x, {x.size(1)}, (*this)(name + ".weight"), (*this)(name + ".bias"), 1e-5);
  }
  at::Tensor linear(const std::string& name, const at::Tensor& x) const {
    const at::Tensor y = at::matmul(x, (*this)(name + ".weight").t());
    const auto bias = model_.tensors.find(prefix_ + name + ".bias");
    return bias == model_.tensors.end() ? y : y + bias->second;
  }
  // Of a matrix [in, out].
  at::Tensor conv1d(const std::string& name, const at::Tensor& x) const {
    return at::matmul(x, (*this)(name + ".weight")) + (*this)(name + ".bias");
  }
  // The values of a matrix with queries, keys and values of each of 4 heads of 8.
  at::Tensor values(const std::string& name, const at::Tensor& x) const {
    return linear(name, x).view({-1, 4, 3, 8}).select(2, 2).reshape({-1, 32});
  }

 private:
  const SmallModel& model_;
  std::string prefix_;
};

const ForwardInput& tokens() {
  static const ForwardInput input = test::tiny_input({1, 1, 1, 1, 1});
  return input;
}

at::Tensor rows_of(const at::Tensor& embedding) {
  return embedding.index_select(0, at::tensor(tokens().tokens));
}

void expect_hidden(const SmallModel& model, const at::Tensor& expected) {
  at::NoGradGuard no_grad;
  const at::Tensor found = model.load()->hidden(tokens());
  ASSERT_EQ(found.sizes(), expected.sizes());
  EXPECT_TRUE(at::allclose(found, expected, 1e-5, 1e-5))
      << (found - expected).abs().max().item<float>();
}

TEST(ClassicBlocks, Gpt2IsOneBranchAfterTheOtherOfInputsByOutputs) {
  const SmallModel model = test::small_gpt2(1);
  const Modules all(model, "transformer."), m(model, "transformer.h.0.");
  const at::Tensor x = rows_of(all("wte.weight")) + all("wpe.weight")[0];
  const at::Tensor v = m.conv1d("attn.c_attn", m.norm("ln_1", x)).narrow(1, 64, 32);
  const at::Tensor s = x + m.conv1d("attn.c_proj", v);
  const at::Tensor inner = at::gelu(m.conv1d("mlp.c_fc", m.norm("ln_2", s)), "tanh");
  expect_hidden(model, all.norm("ln_f", s + m.conv1d("mlp.c_proj", inner)));
}

TEST(ClassicBlocks, GptJsBranchesReadOneNorm) {
  const SmallModel model = test::small_gptj(1);
  const Modules all(model, ""), m(model, "transformer.h.0.");
  const at::Tensor x = rows_of(all("transformer.wte.weight")), n = m.norm("ln_1", x);
  const at::Tensor attention = m.linear("attn.out_proj", m.linear("attn.v_proj", n));
  const at::Tensor mlp = m.linear("mlp.fc_out", at::gelu(m.linear("mlp.fc_in", n), "tanh"));
  const at::Tensor hidden = all.norm("transformer.ln_f", x + attention + mlp);
  expect_hidden(model, hidden);
  at::NoGradGuard no_grad;
  const auto loaded = model.load();
  EXPECT_TRUE(at::allclose(loaded->logits(loaded->hidden(tokens())), all.linear("lm_head", hidden),
                           1e-5, 1e-5));
}

TEST(ClassicBlocks, GptNeoxsBranchesStandSideBySideOrOneAfterTheOther) {
  for (const bool parallel : {true, false}) {
    SCOPED_TRACE(parallel);
    const SmallModel model = test::small_gpt_neox(1, parallel);
    const Modules all(model, "gpt_neox."), m(model, "gpt_neox.layers.0.");
    const at::Tensor x = rows_of(all("embed_in.weight"));
    const at::Tensor s = x + m.linear("attention.dense", m.values("attention.query_key_value",
                                                                  m.norm("input_layernorm", x)));
    const at::Tensor n = m.norm("post_attention_layernorm", parallel ? x : s);
    const at::Tensor mlp =
        m.linear("mlp.dense_4h_to_h", at::gelu(m.linear("mlp.dense_h_to_4h", n)));
    expect_hidden(model, all.norm("final_layer_norm", s + mlp));
  }
}

TEST(ClassicBlocks, Opt350mNormsEachSumAndProjectsItsEmbeddings) {
  const SmallModel model = test::small_opt_350m(1);
  const Modules all(model, "model.decoder."), m(model, "model.decoder.layers.0.");
  const at::Tensor x = all.linear("project_in", rows_of(all("embed_tokens.weight"))) +
                       all("embed_positions.weight")[2];
  const at::Tensor attention = m.linear("self_attn.out_proj", m.linear("self_attn.v_proj", x));
  const at::Tensor s = m.norm("self_attn_layer_norm", x + attention);
  const at::Tensor mlp = m.linear("fc2", at::relu(m.linear("fc1", s)));
  expect_hidden(model, all.linear("project_out", m.norm("final_layer_norm", s + mlp)));
}

// Adapters of the projections see what the head sees, in the type that they compute in.
TEST(ClassicBlocks, AnUpcastHeadBehindAProjectionReadsTheSameNumbers) {
  const SmallModel model = test::small_opt_350m();
  ModelOptions options;
  options.dtype = "bfloat16";
  const auto plain = model.load(at::kBFloat16, options);
  options.upcast = "all";
  const auto upcast = model.load(at::kBFloat16, options);
  const auto on_plain = test::tiny_adapters(*plain, true),
             on_upcast = test::tiny_adapters(*upcast, true);
  at::NoGradGuard no_grad;
  const at::Tensor found = upcast->hidden(test::tiny_input({7, 4}));
  ASSERT_EQ(found.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(found, plain->hidden(test::tiny_input({7, 4})).to(at::kFloat)));
}

TEST(ClassicBlocks, BloomNormsItsEmbeddingsAndMayAddOntoTheNorm) {
  for (const bool normed : {false, true}) {
    SCOPED_TRACE(normed);
    const SmallModel model = test::small_bloom(1, normed);
    const Modules all(model, "transformer."), m(model, "transformer.h.0.");
    const at::Tensor x =
        all.norm("word_embeddings_layernorm", rows_of(all("word_embeddings.weight")));
    const at::Tensor n1 = m.norm("input_layernorm", x);
    const at::Tensor s =
        (normed ? n1 : x) +
        m.linear("self_attention.dense", m.values("self_attention.query_key_value", n1));
    const at::Tensor n2 = m.norm("post_attention_layernorm", s);
    const at::Tensor mlp =
        m.linear("mlp.dense_4h_to_h", at::gelu(m.linear("mlp.dense_h_to_4h", n2), "tanh"));
    expect_hidden(model, all.norm("ln_f", (normed ? n2 : s) + mlp));
  }
}

}  // namespace
}  // namespace qlora::model
