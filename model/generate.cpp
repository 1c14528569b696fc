#include "model/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/seed.h"
#include "model/kv_cache.h"

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

// Where the model has an encoder, a prompt is what that reads, and the decoder begins by itself.
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
      const int64_t length = static_cast<int64_t>(begins_with(i).size());
      sequences_.push_back({i, 0, length});
      longest = std::max(longest, length);
    }
    const int64_t room = model_.architecture().max_positions - longest;
    const int64_t most = longest + std::min(options_.max_new_tokens, room);
    KvCache cache = empty_cache(end - begin, std::min(most, longest + kFirstRoom));
    prefill(cache);
    while (!sequences_.empty()) {
      make_room(cache, most);
      decode(cache);
    }
  }

 private:
  // Tokens there is room for behind the longest prompt before the cache grows.
  static constexpr int64_t kFirstRoom = 256;

  bool encodes() const { return model_.architecture().has_encoder(); }

  // What the decoder reads first.
  std::vector<int32_t> begins_with(int64_t index) const {
    if (encodes()) return {model_.architecture().decoder_tokens.start};
    return prompts_[static_cast<size_t>(index)];
  }

  void add_source(const std::vector<int32_t>& prompt, SourceTexts& source) const {
    source.tokens.insert(source.tokens.end(), prompt.begin(), prompt.end());
    source.cu_seqlens.push_back(static_cast<int32_t>(source.tokens.size()));
  }

  KvCache empty_cache(int64_t sequences, int64_t capacity) const {
    return {model_.cache_widths(), sequences, capacity, model_.compute_dtype(), model_.device()};
  }

  // For one more token of each sequence: doubles a full cache, up to `most` tokens.
  void make_room(KvCache& cache, int64_t most) const {
    int64_t longest = 0;
    for (const Sequence& sequence : sequences_) longest = std::max(longest, sequence.length);
    if (longest <= cache.capacity()) return;
    KvCache larger = empty_cache(cache.num_sequences(), std::min(most, 2 * cache.capacity()));
    for (int64_t s = 0; s < cache.num_sequences(); ++s) {
      const int64_t length = cache.length(s);
      for (int64_t layer = 0; layer < model_.architecture().num_layers(); ++layer)
        larger.append(layer, s, cache.keys(layer, s, length), cache.values(layer, s, length));
      larger.advance(s, length);
    }
    larger.take_encoded(cache);
    cache = std::move(larger);
  }

  // All prompts in one pass; the last row of each gives its first token.
  void prefill(KvCache& cache) {
    ForwardInput input;
    input.cu_seqlens = {0};
    if (encodes()) input.source.cu_seqlens = {0};
    std::vector<int64_t> last_rows;
    for (const Sequence& sequence : sequences_) {
      if (encodes()) add_source(prompts_[static_cast<size_t>(sequence.index)], input.source);
      const std::vector<int32_t> prompt = begins_with(sequence.index);
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
    std::vector<int64_t> last_rows;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Sequence& sequence = sequences_[i];
      if (outgrows_short_frequencies(sequence)) {
        cache.forget(static_cast<int64_t>(i));
        add_text(sequence, input);
      } else {
        input.tokens.push_back(sequence.last);
        input.positions.push_back(static_cast<int32_t>(sequence.length - 1));
      }
      input.cu_seqlens.push_back(static_cast<int32_t>(input.tokens.size()));
      last_rows.push_back(static_cast<int64_t>(input.tokens.size()) - 1);
    }
    const bool one_each = input.tokens.size() == sequences_.size();
    const at::Tensor rows = hidden(input, cache);
    choose(one_each ? rows
                    : rows.index_select(0, at::tensor(last_rows, at::kLong).to(model_.device())),
           cache);
  }

  // Whether the next token is the first beyond the context that longrope scales: in a longer text
  // all tokens are rotated by other frequencies, so that its keys are made anew, as transformers
  // does for Phi-3.
  bool outgrows_short_frequencies(const Sequence& sequence) const {
    return std::ranges::any_of(
        model_.architecture().rotaries, [&sequence](const RotarySpec& rotary) {
          return rotary.rope.type == "longrope" &&
                 sequence.length - 1 == static_cast<int64_t>(rotary.rope.original_max_positions);
        });
  }

  // The prompt and what was generated.
  void add_text(const Sequence& sequence, ForwardInput& input) const {
    const auto index = static_cast<size_t>(sequence.index);
    for (const std::vector<int32_t>* part : {&prompts_[index], &std::as_const(results_)[index]})
      input.tokens.insert(input.tokens.end(), part->begin(), part->end());
    for (int64_t p = 0; p < sequence.length; ++p)
      input.positions.push_back(static_cast<int32_t>(p));
  }

  at::Tensor hidden(ForwardInput& input, KvCache& cache) {
    input.cache = &cache;
    input.adapters_enabled = options_.adapters_enabled;
    input.obeys_stop = options_.obeys_stop;
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
          sequence.length >= model_.architecture().max_positions)
        continue;
      going.push_back(sequence);
      kept.push_back(static_cast<int64_t>(i));
    }
    if (kept.size() != sequences_.size() && !kept.empty()) cache.keep(kept);
    sequences_ = std::move(going);
  }

  int32_t pick(const at::Tensor& logits, const Sequence& sequence) const {
    const auto* values = logits.const_data_ptr<float>();
    require_numbers({values, static_cast<size_t>(logits.numel())}, sequence);
    if (options_.temperature <= 0)
      return static_cast<int32_t>(std::max_element(values, values + logits.numel()) - values);
    const uint64_t key =
        random_key(random_key(options_.seed, "generate"), static_cast<uint64_t>(sequence.index));
    return sample(values, logits.numel(), options_,
                  uniform(key, static_cast<uint64_t>(sequence.length)));
  }

  // NaN has no place in the order of the tokens, and infinity takes all of the probability.
  static void require_numbers(std::span<const float> logits, const Sequence& sequence) {
    const auto bad = std::ranges::find_if(
        logits, [](float logit) { return !(logit < std::numeric_limits<float>::infinity()); });
    if (bad == logits.end()) return;
    fail<DivergenceError>(
        "the model's logits must be numbers, found {} for token {} after {} tokens: the adapter or "
        "the base holds values that are not finite, as after a training that diverged",
        *bad, bad - logits.begin(), sequence.length);
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
    if (static_cast<int64_t>(prompt.size()) >= model.architecture().max_positions) {
      fail<ConfigError>(
          "a prompt of {} tokens leaves no room to generate: the model has {} positions",
          prompt.size(), model.architecture().max_positions);
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
