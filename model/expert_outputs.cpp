#include "model/expert_outputs.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/parallel_for.h"
#include "base/profile.h"
#include "lora/autograd_function.h"
#include "lora/group_low_rank.h"
#include "lora/group_products.h"
#include "lora/stacked_weights.h"
#include "model/activation.h"
#include "model/expert_schedule.h"
#include "quant/offload/offloaded_weight.h"

namespace qlora::model {
namespace {

using lora::AutogradContext;
using lora::LinearGroup;
using lora::Variable;
using lora::variable_list;

// What threads that take whole experts may decode at a time, all together: beyond it, the matrices
// have left the caches that make this worthwhile.
constexpr int64_t kMostDecodedBytes = 16 << 20;

// Where an expert's numbers lie in what all of them share.
struct Place {
  size_t expert;
  int64_t begin, count;             // its rows
  int64_t gate_up_rank, down_rank;  // of its low-rank inputs; 0: none
  int64_t gate_up_h, down_h;        // their first numbers
};

// What the forward pass leaves for the backward pass; undefined where there is none.
struct Kept {
  at::Tensor gates;  // [rows, 2 inner]
  at::Tensor h;      // flat, the low-rank inputs of one product after those of the other
};

bool serve_many_threads(const LinearGroup& group) {
  return std::ranges::all_of(group.layers(), [](const lora::LoraLinear& layer) {
    return layer.base != nullptr && quant::serves_many_threads(*layer.base);
  });
}

// Of a thread beside that which has the model's; small, and kept for the next layer.
quant::Workspace& own_workspace() {
  thread_local quant::Workspace workspace;
  return workspace;
}

class ExpertsPass {
 public:
  ExpertsPass(ExpertsCall call, const lora::ForwardContext& context)
      : call_(std::move(call)), context_(context), order_(most_rows_first(call_.rows_of_expert)) {
    context_.rows_vary = true;
    int64_t row = 0;
    for (size_t e = 0; e < call_.rows_of_expert.size(); ++e) {
      Place place{
          e, row, call_.rows_of_expert[e], rank_of(weights(e).gate_up), rank_of(weights(e).down),
          0, 0};
      place.gate_up_h = low_rank_numbers_;
      place.down_h = place.gate_up_h + place.count * place.gate_up_rank;
      low_rank_numbers_ = place.down_h + place.count * place.down_rank;
      row += place.count;
      places_.push_back(place);
    }
  }

  // A leaf of the graph if anything is trained.
  std::optional<Variable> anchor() const {
    for (const size_t e : order_)
      for (const LinearGroup* group : {&weights(e).gate_up, &weights(e).down})
        if (trains(*group)) return group->anchor();
    return std::nullopt;
  }
  bool reads_rows_again() const {
    return std::ranges::any_of(order_, [this](size_t e) { return trains(weights(e).gate_up); });
  }

  Kept room_for(const at::Tensor& rows) const {
    const int64_t width = lora::outputs_width(call_.experts->front().gate_up);
    return {
        at::empty({rows.size(0), width},
                  rows.options().dtype(call_.narrow_gates ? at::kBFloat16 : rows.scalar_type())),
        low_rank_numbers_ > 0 ? at::empty({low_rank_numbers_}, rows.options()) : at::Tensor()};
  }

  // Fills `kept` as far as it is defined.
  at::Tensor forward(const at::Tensor& rows, const Kept& kept) const {
    const ProfileScope scope("experts");
    at::Tensor y = at::empty(rows.sizes(), rows.options());
    for_each_place(rows, [&](const Place& place, const lora::ForwardContext& context) {
      compute(place, rows_at(rows, place), kept, rows_at(y, place), context);
    });
    return y;
  }

  // The gradient of the rows, if it is wanted; those of adapters go where they are summed. `from`:
  // the rows, or what has them once more.
  at::Tensor backward(const at::Tensor& from, const Kept& kept, const at::Tensor& dy,
                      bool wanted) const {
    const ProfileScope scope("experts backward");
    const at::Tensor dx = wanted ? at::empty_like(dy) : at::Tensor();
    for_each_place(dy, [&](const Place& place, const lora::ForwardContext& context) {
      differentiate(place, rows_again(from, place), kept, rows_at(dy, place), rows_at(dx, place),
                    context);
    });
    return dx;
  }
  // What of the rows is kept for it.
  at::Tensor to_keep(const at::Tensor& rows) const {
    if (!reads_rows_again()) return at::Tensor();
    return call_.source.x.defined() ? call_.source.x.detach() : rows;
  }
  // Leaves that to the graph, which frees it.
  void forget_source() { call_.source.x.reset(); }

 private:
  const ExpertWeights& weights(size_t expert) const { return (*call_.experts)[expert]; }
  bool trains(const LinearGroup& group) const {
    return context_.adapters_enabled && group.anchor().defined();
  }
  int64_t rank_of(const LinearGroup& group) const {
    const bool adapted = context_.adapters_enabled && group.has_adapters();
    return adapted ? group.stacked_a().compute.size(0) : 0;
  }
  static at::Tensor rows_at(const at::Tensor& of_all, const Place& place) {
    return of_all.defined() ? of_all.narrow(0, place.begin, place.count) : at::Tensor();
  }
  at::Tensor rows_again(const at::Tensor& from, const Place& place) const {
    if (!from.defined() || !call_.source.token_of_row.defined()) return rows_at(from, place);
    return from.index_select(0, rows_at(call_.source.token_of_row, place));
  }
  static at::Tensor h_at(const Kept& kept, int64_t first, int64_t count, int64_t rank) {
    if (rank == 0) return at::Tensor();
    return kept.h.narrow(0, first, count * rank).view({count, rank});
  }

  void compute(const Place& place, const at::Tensor& x, const Kept& kept, const at::Tensor& y,
               const lora::ForwardContext& context) const {
    const auto& [gate_up, down] = weights(place.expert);
    const at::Tensor to_keep = rows_at(kept.gates, place);
    const bool as_they_are = to_keep.defined() && to_keep.scalar_type() == x.scalar_type();
    const at::Tensor gates =
        as_they_are ? to_keep : at::empty({place.count, lora::outputs_width(gate_up)}, x.options());
    multiply(gate_up, x, kept, place.gate_up_h, place.gate_up_rank, gates, context);
    if (to_keep.defined() && !as_they_are) to_keep.copy_(gates);
    const at::Tensor inner =
        activate_halves(gates, keep_halves(gates, gates.scalar_type()), call_.activation);
    multiply(down, inner, kept, place.down_h, place.down_rank, y, context);
  }

  static void multiply(const LinearGroup& group, const at::Tensor& x, const Kept& kept,
                       int64_t first, int64_t rank, const at::Tensor& y,
                       const lora::ForwardContext& context) {
    lora::check_group_input(group, x, context);
    if (context.observer != nullptr) (*context.observer)(group, x);
    at::Tensor h;
    if (rank > 0) {
      h = kept.h.defined() ? h_at(kept, first, x.size(0), rank)
                           : at::empty({x.size(0), rank}, x.options());
      lora::low_rank_inputs_into(group, x, context, h);
    }
    lora::group_outputs(group, {x, h}, at::Tensor(), context, y);
  }

  void differentiate(const Place& place, const at::Tensor& x, const Kept& kept,
                     const at::Tensor& dy, const at::Tensor& dx,
                     const lora::ForwardContext& context) const {
    const auto& [gate_up, down] = weights(place.expert);
    const KeptGates gates = keep_halves(rows_at(kept.gates, place), dy.scalar_type());
    const at::Tensor inner = activate_again(gates, dy.scalar_type(), call_.activation);
    const bool goes_on = dx.defined() || trains(gate_up);
    const at::Tensor d_inner = goes_on ? at::empty_like(inner) : at::Tensor();
    gradients(down, {inner, h_at(kept, place.down_h, place.count, place.down_rank)}, dy, d_inner,
              context);
    if (!goes_on) return;
    gradients(gate_up, {x, h_at(kept, place.gate_up_h, place.count, place.gate_up_rank)},
              activation_gradients(gates, d_inner, call_.activation), dx, context);
  }

  void gradients(const LinearGroup& group, const lora::GroupInput& input, const at::Tensor& dy,
                 const at::Tensor& dx, const lora::ForwardContext& context) const {
    if (trains(group))
      lora::group_gradients(group, input, {}, {dy}, dx, context);
    else if (dx.defined())
      lora::frozen_input_gradient(group, {dy}, dx, context);
  }

  // Calls body(place, context) for all experts, side by side where that is faster. `left`: what
  // products are made with.
  template <typename Body>
  void for_each_place(const at::Tensor& left, const Body& body) const {
    const at::NoGradGuard no_grad;
    if (!goes_side_by_side(left)) {
      for (const Place& place : places_)
        if (place.count > 0) body(place, context_);
      return;
    }
    std::atomic<size_t> next{0};
    parallel_for(num_threads(), 1, [&](int64_t thread, int64_t) {
      const at::NoGradGuard no_grad_here;
      lora::ForwardContext context = context_;
      if (thread > 0) context.workspace = &own_workspace();
      for (size_t i = next++; i < order_.size(); i = next++) body(places_[order_[i]], context);
    });
  }

  bool goes_side_by_side(const at::Tensor& left) const {
    const int threads = num_threads();
    if (threads == 1 || !left.is_cpu() || context_.observer != nullptr ||
        !are_shared_evenly(call_.rows_of_expert, threads))
      return false;
    return std::ranges::all_of(order_, [&](size_t e) {
      const auto& [gate_up, down] = weights(e);
      return fits_side_by_side(gate_up, left, threads) && fits_side_by_side(down, left, threads);
    });
  }
  static bool fits_side_by_side(const LinearGroup& group, const at::Tensor& left, int threads) {
    return serve_many_threads(group) &&
           threads * quant::decoded_bytes(lora::product_facts(group.layers(), left, true)) <=
               kMostDecodedBytes;
  }

  ExpertsCall call_;
  lora::ForwardContext context_;
  std::vector<size_t> order_;  // of experts, in which threads take them
  std::vector<Place> places_;  // of all experts
  int64_t low_rank_numbers_ = 0;
};

// Carries the pass through the node's saved data.
struct PassHolder : torch::CustomClassHolder {
  explicit PassHolder(ExpertsPass p) : pass(std::move(p)) { pass.forget_source(); }
  ExpertsPass pass;
};

struct ExpertsNode : lora::Function<ExpertsNode> {
  // `anchor`: ExpertsPass::anchor().
  static Variable forward(AutogradContext* ctx, const Variable& rows,
                          const std::optional<Variable>& anchor, const ExpertsPass* pass) {
    (void)anchor;
    const Kept kept = pass->room_for(rows);
    at::Tensor y = pass->forward(rows, kept);
    ctx->save_for_backward({pass->to_keep(rows), kept.gates, kept.h});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(c10::make_intrusive<PassHolder>(*pass));
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const auto holder = ctx->saved_data["pass"].toCapsule();
    const ExpertsPass& pass = static_cast<PassHolder&>(*holder).pass;
    return {pass.backward(saved[0], {saved[1], saved[2]}, gradients[0].contiguous(),
                          ctx->needs_input_grad(0)),
            Variable(), Variable()};
  }
};

void check_call(const at::Tensor& rows, const ExpertsCall& call,
                const lora::ForwardContext& context) {
  const std::vector<int64_t>& counts = call.rows_of_expert;
  check(call.experts != nullptr && !counts.empty() && counts.size() == call.experts->size(),
        "expert_outputs: there must be a number of rows for each expert");
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  lora::check_group_input(call.experts->front().gate_up, rows, context);
  const SourceOfRows& source = call.source;
  check(!source.x.defined() ||
            (source.token_of_row.dim() == 1 && source.token_of_row.size(0) == total &&
             source.x.dim() == 2 && source.x.size(1) == rows.size(1) &&
             source.x.scalar_type() == rows.scalar_type()),
        "expert_outputs: {} rows do not come from there", total);
  check(rows.size(0) == total && rows.is_contiguous(),
        "expert_outputs: the rows must be [{}, hidden] and contiguous, got {}", total,
        fmt::join(rows.sizes(), " x "));
}

}  // namespace

at::Tensor expert_outputs(const at::Tensor& rows, const ExpertsCall& call,
                          const lora::ForwardContext& context) {
  check_call(rows, call, context);
  const ExpertsPass pass(call, context);
  if (!at::GradMode::is_enabled()) return pass.forward(rows, {});
  const std::optional<Variable> anchor = pass.anchor();
  if (!anchor && !rows.requires_grad()) return pass.forward(rows, {});
  return ExpertsNode::apply(rows, anchor, &pass);
}

}  // namespace qlora::model
