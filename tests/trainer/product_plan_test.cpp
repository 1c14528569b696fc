// The plan and the passes ask one list (quant/products/product_routes.h); here, that they ask it
// the same.
#include "trainer/product_plan.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/instruction_set.h"
#include "lora/attach.h"
#include "lora/stacked_weights.h"
#include "model/families/llama_like.h"
#include "model/load.h"
#include "model/made_weights.h"

namespace qlora::trainer {
namespace {

model::Architecture small_shape() {
  model::LlamaSizes config;
  config.vocab_size = 128;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = 1;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  return model::llama_like("llama", config);
}

quant::ProductFacts planned(const PlannedRun& run, const quant::QuantizationOptions& quantization,
                            const std::vector<model::LinearSpec>& linears) {
  const at::ScalarType dtype = model::dtype_from_string(run.model.dtype, "model.dtype");
  quant::ProductFacts facts = planned_products(run);
  for (const model::LinearSpec& linear : linears) {
    const auto bytes = quant::planned_weight_bytes(
        quantization, run.architecture.module(0, linear.names), linear.out, linear.in, dtype);
    facts.layers.push_back(planned_layer(run, linear, bytes.traits));
  }
  return facts;
}

// All groups of a layer: their facts as planned, and as the loaded and adapted model has them.
void expect_agreement(const PlannedRun& run, const quant::QuantizationOptions& quantization) {
  const auto model = model::load_model(*model::made_weights(run.architecture), run.model,
                                       quantization, at::kCPU, run.compute);
  const lora::AdapterSet adapters(run.lora, model->parts(), run.compute, 1);
  const auto groups = model->layers.front().groups();
  const at::Tensor x = at::zeros({run.tokens(), 64}, run.compute);
  size_t group = 0;
  for (const model::Branch& branch : run.architecture.block(0).branches) {
    for (const std::vector<model::LinearSpec>& linears : branch.groups()) {
      const auto told = planned(run, quantization, linears);
      const auto found = lora::product_facts(groups.at(group)->layers(), x, true);
      for (const auto pass : {quant::Pass::kForward, quant::Pass::kBackward})
        EXPECT_STREQ(quant::product_route(told, pass).name, quant::product_route(found, pass).name);
      EXPECT_EQ(quant::decoded_bytes(told), quant::decoded_bytes(found));
      if (linears.size() == 1) {
        EXPECT_EQ(groups[group]->sums_onto(x, lora::ForwardContext()),
                  quant::product_route(told, quant::Pass::kForward).sums);
      }
      ++group;
    }
  }
  EXPECT_EQ(group, groups.size());
}

TEST(ProductPlan, ThePassesTakeTheRoutesThatArePlanned) {
  for (const auto set : {InstructionSet::kAvx2, InstructionSet::kAvx512Bfloat16}) {
    const AtMost most(set);
    for (const char* method : {"nf4", "fp4", "int8", "int8_weight_only", "none"})
      for (const char* dtype : {"bfloat16", "float16", "float32"})
        for (const at::ScalarType compute : {at::kBFloat16, at::kHalf, at::kFloat})
          for (const int64_t rank : {4, 3})
            for (const bool dora : {false, true}) {
              SCOPED_TRACE(fmt::format("{} {} of {} in {} rank {}{}", to_string(set), method, dtype,
                                       c10::toString(compute), rank, dora ? " DoRA" : ""));
              quant::QuantizationOptions quantization;
              quantization.method = method;
              PlannedRun run;
              run.architecture = small_shape();
              run.model.dtype = dtype;
              run.compute = compute;
              run.lora.rank = rank;
              run.lora.use_dora = dora;
              run.sequence_length = 40;
              expect_agreement(run, quantization);
            }
  }
}

TEST(ProductPlan, TheNeedsAreThoseOfAllProducts) {
  const auto products = [](quant::WeightKind kind, int64_t out) {
    quant::ProductFacts facts{.left = {at::kCUDA, at::kBFloat16, 64}, .sums = true};
    facts.layers.push_back({.weight = {kind, at::kBFloat16}, .out = out, .in = 64});
    return facts;
  };
  ProductNeeds needs;
  needs.add(products(quant::WeightKind::kDecoded, 32), false);
  EXPECT_TRUE(needs.sums_onto && needs.in_library && !needs.in_int8 && !needs.in_int32);
  EXPECT_EQ(needs.decoded_bytes, 2 * 32 * 64);
  needs.add(products(quant::WeightKind::kInt8, 16), true);
  EXPECT_TRUE(!needs.sums_onto && needs.in_library && needs.in_int8 && needs.in_int32);
  EXPECT_EQ(needs.decoded_bytes, 2 * 32 * 64);
}

TEST(ProductPlan, AGateOfOneOutputBringsNoLibrarysKernelsWorthCounting) {
  for (const int64_t out : {1, 3}) {
    ProductNeeds needs;
    quant::ProductFacts facts{.left = {at::kCUDA, at::kBFloat16, 64}, .sums = true};
    facts.layers.push_back(
        {.weight = {quant::WeightKind::kStored, at::kBFloat16}, .out = out, .in = 64});
    ASSERT_TRUE(quant::product_route(facts, quant::Pass::kForward).in_library);
    needs.add(facts, false);
    EXPECT_EQ(needs.in_library, out != 1);
  }
}

}  // namespace
}  // namespace qlora::trainer
