#include "data/mixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qlora::data {
namespace {

struct Amount {
  int64_t examples = 0, tokens = 0;  // a pair is one example with the tokens of both answers

  void add(const ExampleView& example) {
    examples += example.side != Side::kRejected;
    tokens += example.length();
  }
};

Amount sum_of(const std::vector<Amount>& amounts) {
  return std::accumulate(amounts.begin(), amounts.end(), Amount{}, [](Amount a, const Amount& b) {
    return Amount{a.examples + b.examples, a.tokens + b.tokens};
  });
}

std::vector<Amount> amounts_of(const Examples& examples, size_t num_sources) {
  std::vector<Amount> amounts(num_sources);
  for (const ExampleView& example : examples)
    amounts.at(static_cast<size_t>(example.source)).add(example);
  return amounts;
}

bool has_weights(const DataOptions& options) {
  return std::ranges::any_of(options.train, [](const auto& set) { return set.weight > 0; });
}

double percent(int64_t part, int64_t all) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(all, 1));
}

}  // namespace

std::vector<int64_t> examples_an_epoch(const DataOptions& options, const Examples& examples) {
  if (!has_weights(options)) return {};
  const std::vector<Amount> amounts = amounts_of(examples, options.train.size());
  const Amount all = sum_of(amounts);
  double weights = 0;
  for (size_t i = 0; i < amounts.size(); ++i)
    if (amounts[i].examples > 0) weights += options.train[i].weight;
  std::vector<int64_t> counts(amounts.size());
  for (size_t i = 0; i < amounts.size(); ++i) {
    if (amounts[i].examples == 0) continue;
    const double part = options.train[i].weight / weights;
    const double of_average_length = static_cast<double>(all.tokens) *
                                     static_cast<double>(amounts[i].examples) /
                                     static_cast<double>(amounts[i].tokens);
    const double number =
        part * (options.mix_by == "tokens" ? of_average_length : static_cast<double>(all.examples));
    counts[i] = std::max<int64_t>(1, std::llround(number));
  }
  return counts;
}

std::string mixture_text(const DataOptions& options, const Loader& loader) {
  if (!has_weights(options)) return "";
  const std::vector<Amount> given = amounts_of(loader.examples(), options.train.size());
  std::vector<Amount> dealt(given.size());
  for (const int64_t index : loader.order_of(0)) {
    const ExampleView example = loader.examples()[static_cast<size_t>(index)];
    dealt[static_cast<size_t>(example.source)].add(example);
  }
  const Amount all = sum_of(dealt);
  const char* what = options.has_pairs() ? "pairs" : "examples";
  std::string text = fmt::format("mixture by {}: an epoch has {} {}, {} tokens", options.mix_by,
                                 all.examples, what, all.tokens);
  for (size_t i = 0; i < dealt.size(); ++i)
    text += fmt::format(
        "\n  {}: weight {}, {:.1f} % of the {} ({} of {}, each {:.2f} times), {:.1f} % of the "
        "tokens ({})",
        options.train[i].path, options.train[i].weight, percent(dealt[i].examples, all.examples),
        what, dealt[i].examples, given[i].examples,
        static_cast<double>(dealt[i].examples) /
            static_cast<double>(std::max<int64_t>(given[i].examples, 1)),
        percent(dealt[i].tokens, all.tokens), dealt[i].tokens);
  return text;
}

}  // namespace qlora::data
