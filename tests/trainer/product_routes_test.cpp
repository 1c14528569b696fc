// Who multiplies (quant/products/product.h): whatever is trained and on whatever instruction set,
// no 16-bit matrix product reaches ATen where it has only scalar code for it, which is a hundred
// times slower.
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "base/instruction_set.h"
#include "model/families/llama_like.h"
#include "model/generate.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "quant/products/product_routes.h"
#include "trainer/evaluate.h"
#include "trainer/train_step.h"

namespace qlora::trainer {
namespace {

// Operations of ATen that multiply matrices.
const std::set<std::string> kProducts = {"aten::mm",
                                         "aten::addmm",
                                         "aten::bmm",
                                         "aten::baddbmm",
                                         "aten::addbmm",
                                         "aten::mv",
                                         "aten::addmv",
                                         "aten::dot",
                                         "aten::vdot",
                                         "aten::matmul",
                                         "aten::linear",
                                         "aten::einsum",
                                         "aten::outer",
                                         "aten::inner",
                                         "aten::addr",
                                         "aten::scaled_dot_product_attention",
                                         "aten::_scaled_dot_product_flash_attention_for_cpu"};

std::mutex mutex;
std::set<std::string> scalar_products;  // names of operations with 16-bit factors that were seen
int64_t num_operations = 0;

// Which 16-bit products ATen multiplies with vectors here.
bool has_vectors(at::ScalarType type) { return type == at::kBFloat16 && has_avx512_bfloat16(); }

std::unique_ptr<at::ObserverContext> look_at(const at::RecordFunction& f) {
  const std::lock_guard lock(mutex);
  ++num_operations;
  if (!kProducts.contains(f.name())) return nullptr;
  for (const c10::IValue& input : f.inputs()) {
    if (!input.isTensor() || !input.toTensor().defined()) continue;
    const at::ScalarType type = input.toTensor().scalar_type();
    if ((type == at::kHalf || type == at::kBFloat16) && !has_vectors(type))
      scalar_products.insert(std::string(f.name()) + " of " + c10::toString(type));
  }
  return nullptr;
}

// Sees every operation while it lives.
class Watch {
 public:
  Watch()
      : handle_(at::addGlobalCallback(at::RecordFunctionCallback(look_at).needsInputs(true).scopes(
            {at::RecordScope::FUNCTION}))) {
    scalar_products.clear();
    num_operations = 0;
  }
  ~Watch() { at::removeCallback(handle_); }

 private:
  at::CallbackHandle handle_;
};

struct Variant {
  std::string name;
  lora::LoraOptions lora;
  quant::QuantizationOptions quantization;
  model::ModelOptions model;
};

quant::QuantizationOptions method(const std::string& name) {
  quant::QuantizationOptions options;
  options.method = name;
  return options;
}

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const char* name : {"nf4", "fp4", "int8", "int8_weight_only", "none"})
    all.push_back({name, {}, method(name), {}});
  const auto with = [&](const std::string& name, const auto& change) {
    Variant v{name, {}, method("nf4"), {}};
    change(v);
    all.push_back(v);
  };
  with("an odd rank", [](Variant& v) { v.lora.rank = 3; });
  with("dropout", [](Variant& v) { v.lora.dropout = 0.5; });
  with("DoRA", [](Variant& v) { v.lora.use_dora = true; });
  with("DoRA with dropout", [](Variant& v) {
    v.lora.use_dora = true;
    v.lora.dropout = 0.5;
  });
  with("whole modules", [](Variant& v) { v.lora.modules_to_save = {"lm_head", "up_proj"}; });
  with("single tokens", [](Variant& v) {
    v.lora.trainable_token_indices = {{"embed_tokens", {1, 2}}, {"lm_head", {1, 2}}};
  });
  with("an adapter on the head", [](Variant& v) { v.lora.targets = {"lm_head", "q_proj"}; });
  with("upcast", [](Variant& v) { v.model.upcast = "all"; });
  with("float16 weights", [](Variant& v) {
    v.model.dtype = "float16";
    v.quantization = method("none");
  });
  with("float32 weights", [](Variant& v) {
    v.model.dtype = "float32";
    v.quantization = method("none");
  });
  return all;
}

// Sizes that no vector divides, beside those that all do.
model::Architecture architecture() {
  model::LlamaSizes c;
  c.vocab_size = 131;
  c.hidden_size = 64;
  c.intermediate_size = 70;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  return model::llama_like("llama", c);
}

std::vector<data::Example> rows() {
  data::Example row;
  for (int i = 0; i < 40; ++i) row.tokens.push_back(i % 7);
  row.supervised.assign(row.tokens.size(), 1);
  return {row, row};
}

// A training step, an evaluation and an answer.
void use(const Variant& v, at::ScalarType compute) {
  const auto source = model::made_weights(architecture());
  const auto model = model::load_model(*source, v.model, v.quantization, at::kCPU, compute);
  lora::AdapterSet adapters(v.lora, model->parts(), compute, 1);
  std::vector<optim::Parameter> parameters;
  for (const auto& t : adapters.tensors()) parameters.push_back({t.name, t.value, t.gradient});
  const optim::OptimizerOptions options;
  const auto optimizer = optim::make_optimizer(options, parameters);
  data::Loader loader(rows(), {40, false});
  TrainState state;
  state.choices.recompute_layers = model::RecomputedLayers::first(1);
  TrainJob job{*model, adapters, *optimizer, parameters, optim::LrSchedule(options, 10),
               loader, state};
  const double loss = accumulate_gradients(job, loader.next()).value;
  EXPECT_TRUE(std::isfinite(loss)) << v.name;
  optimizer->step(1e-3, 1.0);
  adapters.publish();
  evaluate_loss(*model, rows());
  model::GenerateOptions generate;
  generate.max_new_tokens = 3;
  model::generate(*model, {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {4}}, generate);
}

TEST(ProductRoutes, NoSixteenBitProductIsLeftToScalarCode) {
  for (const auto set : {InstructionSet::kBaseline, InstructionSet::kAvx2, InstructionSet::kAvx512,
                         InstructionSet::kAvx512Bfloat16}) {
    const AtMost most(set);
    for (const at::ScalarType compute : {at::kBFloat16, at::kHalf, at::kFloat})
      for (const Variant& v : variants()) {
        const Watch watch;
        use(v, compute);
        EXPECT_GT(num_operations, 100);
        for (const std::string& seen : scalar_products)
          ADD_FAILURE() << v.name << " in " << c10::toString(compute) << " with "
                        << to_string(instruction_set()) << ": " << seen;
      }
  }
}

TEST(ProductRoutes, TheWatchSeesAProductInSixteenBits) {
  const AtMost most(InstructionSet::kAvx2);
  const Watch watch;
  at::mm(at::ones({2, 2}, at::kBFloat16), at::ones({2, 2}, at::kBFloat16));
  EXPECT_EQ(scalar_products, std::set<std::string>{"aten::mm of BFloat16"});
}

TEST(ProductRoutes, EachKindOfProductHasARouteOnEachInstructionSet) {
  for (const auto set :
       {InstructionSet::kBaseline, InstructionSet::kAvx2, InstructionSet::kAvx512}) {
    const AtMost most(set);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf})
      EXPECT_TRUE(quant::multiplies_in_float(at::kCPU, type)) << to_string(set);
    for (const quant::MachineProduct& route : quant::cpu_product_routes())
      EXPECT_FALSE(route.route.empty()) << route.kind;
  }
}

}  // namespace
}  // namespace qlora::trainer
