#include "trainer/planned_base.h"

#include <algorithm>
#include <string>

#include "model/load.h"

namespace qlora::trainer {
namespace {
using quant::Home;

constexpr int64_t kFloat = 4;

// What the linear layers of one block take.
struct BlockBytes {
  int64_t weights = 0, scales = 0;
  int64_t all() const { return weights + scales; }
};

class Weigher {
 public:
  explicit Weigher(const PlannedRun& run)
      : run_(run),
        a_(run.architecture),
        dtype_bytes_(static_cast<int64_t>(c10::elementSize(planned_dtype(run)))) {}

  PlannedBase weigh() {
    weigh_projections();
    for (int64_t layer = 0; layer < a_.num_layers(); ++layer) place(layer, weigh_block(layer));
    weigh_outer();
    return std::move(base_);
  }

 private:
  void weigh_projections();
  BlockBytes weigh_block(int64_t layer);
  // Of a group that the CPU multiplies in float32 although the run computes otherwise.
  void add_host_products(const quant::ProductFacts& facts, bool ends_branch);
  void place(int64_t layer, const BlockBytes& block);
  void add_fetched(const BlockBytes& block);
  void weigh_outer();
  // Adds a linear layer's bytes; as its products see it.
  quant::LayerFacts add_linear(const quant::WeightBytes& bytes, const model::LinearSpec& linear,
                               BlockBytes& to);
  void keep_matrix(Home home, int64_t bytes);

  const PlannedRun& run_;
  const model::Architecture& a_;
  int64_t dtype_bytes_;
  PlannedBase base_;
};

quant::LayerFacts Weigher::add_linear(const quant::WeightBytes& bytes,
                                      const model::LinearSpec& linear, BlockBytes& to) {
  to.weights += bytes.weights;
  to.scales += bytes.scales;
  if (linear.bias) base_.biases += linear.out * dtype_bytes_;
  base_.largest = std::max(base_.largest, linear.numbers());
  return planned_layer(run_, linear, bytes.traits);
}

void Weigher::weigh_projections() {
  for (const model::LinearSpec* outer : {&a_.embedding.projection, &a_.head_projection}) {
    if (!outer->present()) continue;
    quant::ProductFacts facts = planned_products(run_);
    BlockBytes bytes;
    facts.layers.push_back(
        add_linear(run_.weight(outer->names.hugging_face, *outer), *outer, bytes));
    base_.weights += bytes.weights;
    base_.scales += bytes.scales;
    base_.products.add(facts, false);
  }
}

BlockBytes Weigher::weigh_block(int64_t layer) {
  const bool wide = run_.placement.in_float32(layer);
  BlockBytes block;
  for (const model::Branch& branch : a_.block(layer).branches) {
    const auto groups = branch.groups();
    for (size_t g = 0; g < groups.size(); ++g) {
      quant::ProductFacts facts = planned_products(run_);
      for (const model::LinearSpec& linear : groups[g]) {
        const std::string module = a_.module(layer, linear.names);
        const quant::WeightBytes bytes =
            wide ? quant::planned_weight_bytes({}, module, linear.out, linear.in, at::kFloat)
                 : run_.weight(module, linear);
        facts.layers.push_back(add_linear(bytes, linear, block));
      }
      const bool ends_branch = !branch.experts() && g + 1 == groups.size();
      if (wide && (run_.on_gpu || run_.compute != at::kFloat))
        add_host_products(facts, ends_branch);
      else
        base_.products.add(facts, ends_branch);
    }
  }
  return block;
}

void Weigher::add_host_products(const quant::ProductFacts& facts, bool ends_branch) {
  for (const quant::LayerFacts& layer : facts.layers)
    base_.host_product_width = std::max(base_.host_product_width, layer.in + layer.out);
  if (ends_branch) base_.products.sums_onto = false;
}

void Weigher::place(int64_t layer, const BlockBytes& block) {
  const Home home = run_.placement.of(layer);
  const bool shared = home == Home::kRanks;
  if (home == Home::kDevice || (shared && run_.ranks == 1)) {
    base_.weights += block.weights;
    base_.scales += block.scales;
    return;
  }
  Elsewhere& elsewhere = base_.elsewhere;
  if (shared) {
    elsewhere.shards += (block.all() + run_.ranks - 1) / run_.ranks;
    elsewhere.fetched_shared += block.all();
    add_fetched(block);
    return;
  }
  const bool on_host = home == Home::kHost;
  (on_host ? elsewhere.host : elsewhere.disk) += block.all();
  if (run_.on_gpu && run_.placement.in_float32(layer)) return;  // multiplied where it lies
  (on_host ? elsewhere.fetched_host : elsewhere.fetched_disk) += block.all();
  add_fetched(block);
}

void Weigher::add_fetched(const BlockBytes& block) {
  ++base_.elsewhere.fetched_blocks;
  base_.elsewhere.largest_block = std::max(base_.elsewhere.largest_block, block.all());
}

void Weigher::keep_matrix(Home home, int64_t bytes) {
  switch (home) {
    case Home::kDevice:
      base_.outer += bytes;
      break;
    case Home::kHost:
      base_.elsewhere.host += bytes;
      break;
    case Home::kDisk:
      base_.elsewhere.disk += bytes;
      break;
    case Home::kRanks:  // blocks alone
      break;
  }
}

void Weigher::weigh_outer() {
  const int64_t outer_bytes = outer_element_bytes(run_);
  const int64_t matrix = a_.vocab_size * a_.embedding.width * outer_bytes;
  keep_matrix(run_.placement.embedding, matrix);
  if (!a_.tied_embeddings) keep_matrix(run_.placement.head, matrix);
  if (run_.placement.head == Home::kHost) base_.elsewhere.head_host = matrix;
  if (run_.placement.head == Home::kDisk) base_.elsewhere.head_disk = matrix;
  base_.outer += a_.embedding.positions.rows * a_.hidden_size * dtype_bytes_;
  if (a_.head.bias) base_.biases += a_.vocab_size * outer_bytes;
  for_each_norm(a_, [&](const std::string&, const model::NormSpec& norm) {
    base_.norms += norm.numbers() * ((norm.weight ? 1 : 0) + (norm.bias ? 1 : 0)) * kFloat;
  });
}

}  // namespace

PlannedBase planned_base(const PlannedRun& run) { return Weigher(run).weigh(); }

at::ScalarType planned_dtype(const PlannedRun& run) {
  return run.model.dtype == "auto" ? at::kBFloat16
                                   : model::dtype_from_string(run.model.dtype, "model.dtype");
}

int64_t outer_element_bytes(const PlannedRun& run) {
  return run.model.upcast == "all" ? kFloat
                                   : static_cast<int64_t>(c10::elementSize(planned_dtype(run)));
}

}  // namespace qlora::trainer
