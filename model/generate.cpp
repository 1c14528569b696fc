#include "model/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/seed.h"
#include "model/few_tokens.h"
#include "model/kv_cache.h"
#include "model/position_limit.h"
#include "model/prompt_lookup.h"
#include "quant/few_rows/rows_product.h"

namespace qlora::model {
namespace {

// Tokens from the most likely on, of equals the one with the least id. What is asked for is few of
// many: a heap gives these without a sort of all.
class ByLikelihood {
 public:
  explicit ByLikelihood(std::span<const float> logits) : logits_(logits), heap_(logits.size()) {
    std::iota(heap_.begin(), heap_.end(), 0);
    std::ranges::make_heap(heap_, less_likely());
  }
  bool empty() const { return heap_.empty(); }
  int32_t next() {
    std::ranges::pop_heap(heap_, less_likely());
    const int32_t token = heap_.back();
    heap_.pop_back();
    return token;
  }

 private:
  struct LessLikely {
    const float* logits;
    bool operator()(int32_t a, int32_t b) const {
      return logits[a] != logits[b] ? logits[a] < logits[b] : a > b;
    }
  };
  LessLikely less_likely() const { return {logits_.data()}; }

  std::span<const float> logits_;
  std::vector<int32_t> heap_;
};

// One draw from softmax(logits / temperature), cut to the most likely tokens whose mass reaches
// top_p.
int32_t sample(std::span<const float> logits, const GenerateOptions& options, float random) {
  const double top = std::ranges::max(logits);
  const auto mass = [&](float logit) { return std::exp((logit - top) / options.temperature); };
  double total = 0;
  for (const float logit : logits) total += mass(logit);
  // Without a cut no more tokens are looked at than those up to the drawn one.
  const bool cut = options.top_p < 1;
  const double enough = (cut ? options.top_p : random) * total;
  ByLikelihood tokens(logits);
  std::vector<std::pair<int32_t, double>> likely;
  double kept = 0;
  do {
    const int32_t token = tokens.next();
    likely.emplace_back(token, mass(logits[static_cast<size_t>(token)]));
    kept += likely.back().second;
  } while (kept < enough && !tokens.empty());
  double left = random * (cut ? kept : total);
  for (const auto& [token, of_token] : likely)
    if ((left -= of_token) < 0) return token;
  return likely.back().first;
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
        results_(results),
        positions_(position_limit(model.architecture()).tokens),
        drafts_(options.draft_tokens > 0 && tokens_are_independent(model)) {}

  void run(int64_t begin, int64_t end) {
    int64_t longest = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t length = static_cast<int64_t>(begins_with(i).size());
      sequences_.push_back({i, 0, length});
      longest = std::max(longest, length);
    }
    const int64_t room = positions_ - longest;
    const int64_t most = longest + std::min(options_.max_new_tokens, room);
    KvCache cache = empty_cache(end - begin, std::min(most, longest + kFirstRoom));
    prefill(cache);
    while (!sequences_.empty()) {
      make_room(cache, most);
      if (drafts_ && sequences_.size() == 1)
        decode_with_draft(cache);
      else
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

  // One sequence is left: it reads tokens that are guessed behind its last one in the same pass,
  // and goes on as far as each is what is chosen without it.
  void decode_with_draft(KvCache& cache) {
    Sequence& sequence = sequences_.front();
    if (outgrows_short_frequencies(sequence)) return decode(cache);
    const std::vector<int32_t> draft = guess(sequence, cache);
    ForwardInput input;
    input.tokens = {sequence.last};
    input.tokens.insert(input.tokens.end(), draft.begin(), draft.end());
    const auto count = static_cast<int64_t>(input.tokens.size());
    for (int64_t i = 0; i < count; ++i)
      input.positions.push_back(static_cast<int32_t>(sequence.length - 1 + i));
    input.cu_seqlens = {0, static_cast<int32_t>(count)};
    const at::Tensor logits = logits_of(hidden(input, cache));
    int64_t used = 0;
    bool goes_on = true;
    do {
      goes_on = take(sequence, logits[used++]);
    } while (goes_on && used < count && sequence.last == draft[static_cast<size_t>(used) - 1]);
    cache.advance(0, used - count);
    if (!draft.empty()) lookup_->judge(used - 1);
    if (!goes_on) sequences_.clear();
  }

  // Of the sequence that is left; as many as the answer, the cache and the model's positions have
  // room for, and as one pass rotates alike.
  std::vector<int32_t> guess(const Sequence& sequence, const KvCache& cache) {
    const auto index = static_cast<size_t>(sequence.index);
    if (!lookup_) {
      static_assert(GenerateOptions::kMostDraftTokens < quant::kFewRows);
      lookup_.emplace(std::min(options_.draft_tokens, GenerateOptions::kMostDraftTokens));
      for (const int32_t token : prompts_[index]) lookup_->add(token);
    }
    const std::vector<int32_t>& result = results_[index];
    for (; looked_up_ < result.size(); ++looked_up_) lookup_->add(result[looked_up_]);
    const int64_t wanted = options_.max_new_tokens - static_cast<int64_t>(result.size());
    return lookup_->guess(std::min({wanted - 1, cache.capacity() - sequence.length,
                                    positions_alike(sequence) - sequence.length}));
  }

  // The greatest length of the text that the next pass may come to. Beyond its context dynamic RoPE
  // turns a token by the text's length up to it, so that each is read by itself.
  int64_t positions_alike(const Sequence& sequence) const {
    int64_t most = positions_;
    for (const RotarySpec& rotary : model_.architecture().rotaries) {
      const auto bound = static_cast<int64_t>(rotary.rope.original_max_positions);
      if (rotary.rope.type == "longrope" && sequence.length <= bound) most = std::min(most, bound);
      if (rotary.rope.type == "dynamic") most = std::min(most, std::max(bound, sequence.length));
    }
    return most;
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

  at::Tensor logits_of(const at::Tensor& rows) {
    return model_.logits(rows, options_.adapters_enabled).cpu();
  }

  // Picks a token for each sequence and drops those that end with it.
  void choose(const at::Tensor& rows, KvCache& cache) {
    const at::Tensor logits = logits_of(rows);
    std::vector<Sequence> going;
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < static_cast<int64_t>(sequences_.size()); ++i) {
      Sequence sequence = sequences_[static_cast<size_t>(i)];
      if (!take(sequence, logits[i])) continue;
      going.push_back(sequence);
      kept.push_back(i);
    }
    if (kept.size() != sequences_.size() && !kept.empty()) cache.keep(kept);
    sequences_ = std::move(going);
  }

  // Picks the next token; whether there are to be others behind it.
  bool take(Sequence& sequence, const at::Tensor& logits) {
    auto& result = results_[static_cast<size_t>(sequence.index)];
    sequence.last = pick(logits, sequence);
    result.push_back(sequence.last);
    ++sequence.length;
    const bool stopped = std::ranges::count(options_.stop_ids, sequence.last) > 0;
    const bool wanted = !on_token_ || on_token_(sequence.index, sequence.last);
    return !stopped && wanted && static_cast<int64_t>(result.size()) < options_.max_new_tokens &&
           sequence.length < positions_;
  }

  int32_t pick(const at::Tensor& logits, const Sequence& sequence) const {
    const auto* values = logits.const_data_ptr<float>();
    require_numbers({values, static_cast<size_t>(logits.numel())}, sequence);
    if (options_.temperature <= 0)
      return static_cast<int32_t>(std::max_element(values, values + logits.numel()) - values);
    const uint64_t key =
        random_key(random_key(options_.seed, "generate"), static_cast<uint64_t>(sequence.index));
    return sample({values, static_cast<size_t>(logits.numel())}, options_,
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
  int64_t positions_;
  bool drafts_;
  std::vector<Sequence> sequences_;
  // Of the sequence that is left alone, and how much of its result it has.
  std::optional<PromptLookup> lookup_;
  size_t looked_up_ = 0;
};

}  // namespace

std::vector<std::vector<int32_t>> generate(CausalLm& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options,
                                           const OnToken& on_token) {
  const PositionLimit limit = position_limit(model.architecture());
  for (const auto& prompt : prompts) {
    if (prompt.empty()) throw ConfigError("a prompt must hold at least one token");
    if (static_cast<int64_t>(prompt.size()) >= limit.tokens) {
      fail<ConfigError>(
          "a prompt of {} tokens leaves no room to generate: the model has {} positions ({})",
          prompt.size(), limit.tokens, limit.said_by);
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
