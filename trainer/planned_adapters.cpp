#include "trainer/planned_adapters.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "lora/expert_names.h"
#include "lora/targets.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kFloat = 4;

class Attacher {
 public:
  explicit Attacher(const PlannedRun& run) : run_(run), a_(run.architecture) {
    planned_.embeddings =
        lora::trained_embeddings(run.lora, a_.tied_embeddings, a_.vocab_size, a_.embedding_names());
  }

  PlannedAdapters attach() {
    adapt_linear_layers();
    planned_.numbers_in_products = planned_.numbers();
    train_beside_layers();
    return std::move(planned_);
  }

 private:
  void adapt_linear_layers();
  // What is trained of a linear layer; `use`: of its group, or null.
  void adapt(const std::string& module, bool chosen, const model::LinearSpec& linear,
             model::GroupUse* use);
  void train_beside_layers();
  void add_parameter(int64_t numbers) { planned_.parameter_sizes.push_back(numbers); }

  const PlannedRun& run_;
  const model::Architecture& a_;
  PlannedAdapters planned_;
};

void Attacher::adapt_linear_layers() {
  std::vector<std::string> names = a_.linear_modules();
  names.push_back(a_.head.names.hugging_face);
  const lora::Targets targets = lora::match_targets(run_.lora, names);
  planned_.blocks.resize(static_cast<size_t>(a_.num_layers()));
  size_t next = 0;
  const auto adapt_next = [&](const model::LinearSpec& linear, model::GroupUse* use) {
    adapt(names[next], targets.chosen[next], linear, use);
    ++next;
  };
  if (a_.embedding.projection.present()) adapt_next(a_.embedding.projection, &planned_.first);
  for (int64_t layer = 0; layer < a_.num_layers(); ++layer) {
    auto& uses = planned_.blocks[static_cast<size_t>(layer)].branches;
    const auto& branches = a_.block(layer).branches;
    uses.resize(branches.size());
    for (size_t b = 0; b < branches.size(); ++b) {
      const auto groups = branches[b].groups();
      for (size_t g = 0; g < groups.size(); ++g)
        for (const model::LinearSpec& linear : groups[g])
          adapt_next(linear, uses[b].of_group(branches[b], g));
    }
  }
  if (a_.head_projection.present()) adapt_next(a_.head_projection, nullptr);
  adapt_next(a_.head, nullptr);
}

void Attacher::adapt(const std::string& module, bool chosen, const model::LinearSpec& linear,
                     model::GroupUse* use) {
  const lora::LoraOptions& options = run_.lora;
  const lora::TrainedEmbeddings& embeddings = planned_.embeddings;
  const int64_t out = linear.out, in = linear.in;
  const bool head = &linear == &a_.head;
  const bool whole = head ? embeddings.whole_head : lora::is_trained_whole(options, module);
  const bool trains_bias =
      linear.bias && !lora::is_parameter(module) &&
      (whole || options.bias == "all" || (options.bias == "lora_only" && chosen));
  if (use) use->trained |= chosen || whole || trains_bias;
  if (trains_bias) add_parameter(out);
  if (whole) add_parameter(out * in);
  if (head && !embeddings.head_ids.empty())
    add_parameter(static_cast<int64_t>(embeddings.head_ids.size()) * in);
  if (!chosen) return;
  const int64_t rank = options.of_module(module).rank;
  add_parameter(rank * in);
  add_parameter(out * rank);
  if (use) use->ranks += rank;
  if (!options.use_dora) return;
  add_parameter(out);
  planned_.dora_norm_bytes += 3 * out * kFloat;
  if (use) use->dora += out;
}

void Attacher::train_beside_layers() {
  const lora::TrainedEmbeddings& embeddings = planned_.embeddings;
  if (!embeddings.shared) {
    const auto rows = embeddings.whole_embedding
                          ? a_.vocab_size
                          : static_cast<int64_t>(embeddings.embedding_ids.size());
    if (rows > 0) add_parameter(rows * a_.embedding.width);
  }
  const auto train = [this](const std::string& module, const model::NormSpec& norm) {
    const bool whole = lora::is_trained_whole(run_.lora, module);
    const bool bias = norm.bias && (whole || run_.lora.bias == "all");
    if (whole && norm.weight) add_parameter(norm.numbers());
    if (bias) add_parameter(norm.numbers());
    return (whole && norm.weight) || bias;
  };
  if (const model::NormSpec& first = a_.embedding.norm; first.present())
    planned_.first.trained |= train(first.names.hugging_face, first);
  for (int64_t layer = 0; layer < a_.num_layers(); ++layer)
    a_.block(layer).for_each_norm([&](const model::NormSpec& norm) {
      planned_.blocks[static_cast<size_t>(layer)].norms |=
          train(a_.module(layer, norm.names), norm);
    });
  if (const model::NormSpec& last = a_.decoder.final_norm; last.present())
    train(last.names.hugging_face, last);
}

}  // namespace

bool AdaptedBlock::any() const {
  return norms ||
         std::ranges::any_of(branches, [](const model::BranchUse& use) { return use.any(); });
}

int64_t PlannedAdapters::numbers() const {
  return std::accumulate(parameter_sizes.begin(), parameter_sizes.end(), int64_t{0});
}

PlannedAdapters planned_adapters(const PlannedRun& run) { return Attacher(run).attach(); }

}  // namespace qlora::trainer
