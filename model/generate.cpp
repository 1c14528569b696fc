#include "model/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/seed.h"

namespace qlora::model {
namespace {

// One draw from softmax(logits / temperature), cut to the most likely tokens whose mass reaches
// top_p.
int32_t sample(const float* logits, int64_t vocab, const GenerateOptions& options, float random) {
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [logits](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::sort(order.begin(), order.end(), likelier);
  const double top = logits[order[0]];
  std::vector<double> mass(order.size());
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i)
    total += mass[i] = std::exp((logits[order[i]] - top) / options.temperature);
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options.top_p * total))
    kept += mass[count++];
  double left = random * kept;
  for (size_t i = 0; i + 1 < count; ++i)
    if ((left -= mass[i]) < 0) return order[i];
  return order[count - 1];
}

struct Sequence {
  int64_t index = 0;  // into the prompts
  int32_t last = 0;   // the token to feed next
  int64_t length = 0;
};

class Batch {
 public:
  Batch(CausalLm& model, const std::vector<std::vector<int32_t>>& prompts,
        const GenerateOptions& options, const OnToken& on_token,
        std::vector<std::vector<int32_t>>& results)
      : model_(model),
        prompts_(prompts),
        options_(options),
        on_token_(on_token),
        results_(results) {}

  void run(int64_t begin, int64_t end) {
    int64_t longest = 0;
    for (int64_t i = begin; i < end; ++i) {
      const auto length = static_cast<int64_t>(prompts_[static_cast<size_t>(i)].size());
      sequences_.push_back({i, 0, length});
      longest = std::max(longest, length);
    }
    const int64_t capacity = longest + options_.max_new_tokens;
    KvCache cache(model_.config(), end - begin, capacity, model_.compute_dtype(), model_.device());
    prefill(cache);
    while (!sequences_.empty()) decode(cache);
  }

 private:
  // All prompts in one pass; the last row of each gives its first token.
  void prefill(KvCache& cache) {
    ForwardInput input;
    input.cu_seqlens = {0};
    std::vector<int64_t> last_rows;
    for (const Sequence& sequence : sequences_) {
      const auto& prompt = prompts_[static_cast<size_t>(sequence.index)];
      input.tokens.insert(input.tokens.end(), prompt.begin(), prompt.end());
      for (int64_t p = 0; p < sequence.length; ++p)
        input.positions.push_back(static_cast<int32_t>(p));
      input.cu_seqlens.push_back(static_cast<int32_t>(input.tokens.size()));
      last_rows.push_back(static_cast<int64_t>(input.tokens.size()) - 1);
    }
    choose(
        hidden(input, cache).index_select(0, at::tensor(last_rows, at::kLong).to(model_.device())),
        cache);
  }

  void decode(KvCache& cache) {
    ForwardInput input;
    input.cu_seqlens = {0};
    for (const Sequence& sequence : sequences_) {
      input.tokens.push_back(sequence.last);
      input.positions.push_back(static_cast<int32_t>(sequence.length - 1));
      input.cu_seqlens.push_back(static_cast<int32_t>(input.tokens.size()));
    }
    choose(hidden(input, cache), cache);
  }

  at::Tensor hidden(ForwardInput& input, KvCache& cache) {
    input.cache = &cache;
    input.adapters_enabled = options_.adapters_enabled;
    return model_.hidden(input);
  }

  // Picks a token for each sequence and drops those that end with it.
  void choose(const at::Tensor& rows, KvCache& cache) {
    const at::Tensor logits = model_.logits(rows, options_.adapters_enabled).cpu();
    std::vector<Sequence> going;
    std::vector<int64_t> kept;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      Sequence sequence = sequences_[i];
      auto& result = results_[static_cast<size_t>(sequence.index)];
      sequence.last = pick(logits[static_cast<int64_t>(i)], sequence);
      result.push_back(sequence.last);
      ++sequence.length;
      const bool stopped = std::ranges::count(options_.stop_ids, sequence.last) > 0;
      const bool wanted = !on_token_ || on_token_(sequence.index, sequence.last);
      if (stopped || !wanted || static_cast<int64_t>(result.size()) >= options_.max_new_tokens ||
          sequence.length >= model_.config().max_positions)
        continue;
      going.push_back(sequence);
      kept.push_back(static_cast<int64_t>(i));
    }
    if (kept.size() != sequences_.size() && !kept.empty()) cache.keep(kept);
    sequences_ = std::move(going);
  }

  int32_t pick(const at::Tensor& logits, const Sequence& sequence) const {
    const auto* values = logits.const_data_ptr<float>();
    if (options_.temperature <= 0)
      return static_cast<int32_t>(std::max_element(values, values + logits.numel()) - values);
    const uint64_t key =
        random_key(random_key(options_.seed, "generate"), static_cast<uint64_t>(sequence.index));
    return sample(values, logits.numel(), options_,
                  uniform(key, static_cast<uint64_t>(sequence.length)));
  }

  CausalLm& model_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GenerateOptions& options_;
  const OnToken& on_token_;
  std::vector<std::vector<int32_t>>& results_;
  std::vector<Sequence> sequences_;
};

}  // namespace

std::vector<std::vector<int32_t>> generate(CausalLm& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options,
                                           const OnToken& on_token) {
  for (const auto& prompt : prompts) {
    if (prompt.empty()) throw ConfigError("a prompt must hold at least one token");
    if (static_cast<int64_t>(prompt.size()) >= model.config().max_positions) {
      fail<ConfigError>(
          "a prompt of {} tokens leaves no room to generate: the model has {} positions",
          prompt.size(), model.config().max_positions);
    }
  }
  check(options.max_new_tokens > 0 && options.max_batch > 0,
        "generate: max_new_tokens and max_batch must be positive");
  at::NoGradGuard no_grad;
  // Past the dispatch to autograd, which has nothing to do here but takes time for each small op.
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  std::vector<std::vector<int32_t>> results(prompts.size());
  const auto count = static_cast<int64_t>(prompts.size());
  for (int64_t begin = 0; begin < count; begin += options.max_batch)
    Batch(model, prompts, options, on_token, results)
        .run(begin, std::min(count, begin + options.max_batch));
  return results;
}

}  // namespace qlora::model
