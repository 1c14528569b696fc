#include "data/examples.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "io/hashing.h"

namespace qlora::data {
namespace {

class ExamplesInMemory : public ExampleStore {
 public:
  explicit ExamplesInMemory(std::vector<Example> examples) : examples_(std::move(examples)) {}
  int64_t size() const override { return static_cast<int64_t>(examples_.size()); }
  ExampleView at(int64_t index) const override { return examples_[static_cast<size_t>(index)]; }

 private:
  std::vector<Example> examples_;
};

int64_t count_supervised(std::span<const uint8_t> supervised) {
  if (supervised.size() < 2) return 0;
  return std::count_if(supervised.begin() + 1, supervised.end(), [](uint8_t s) { return s != 0; });
}

void add(const ExampleView& example, io::Hasher& hasher) {
  // The length in front keeps neighbouring examples apart; the first token's mask has no effect.
  const int64_t length = example.length();
  hasher.update(std::as_bytes(std::span(&length, 1)));
  hasher.update(std::as_bytes(example.tokens));
  if (example.supervised.size() > 1) hasher.update(std::as_bytes(example.supervised.subspan(1)));
  hasher.update(std::as_bytes(example.encoded));
}

}  // namespace

int64_t Example::num_supervised() const { return count_supervised(supervised); }

ExampleView::ExampleView(const Example& example)
    : tokens(example.tokens),
      supervised(example.supervised),
      row(example.row),
      source(example.source),
      encoded(example.encoded),
      side(example.side) {}

int64_t ExampleView::num_supervised() const {
  return counted >= 0 ? counted : count_supervised(supervised);
}

Example ExampleView::copy() const {
  Example example;
  example.tokens.assign(tokens.begin(), tokens.end());
  example.supervised.assign(supervised.begin(), supervised.end());
  example.row = row;
  example.source = source;
  example.encoded.assign(encoded.begin(), encoded.end());
  example.side = side;
  return example;
}

Examples::Examples(std::vector<Example> examples)
    : Examples(std::make_shared<ExamplesInMemory>(std::move(examples))) {}

Examples::Examples(std::initializer_list<Example> examples)
    : Examples(std::vector<Example>(examples)) {}

Examples::Examples(std::shared_ptr<const ExampleStore> store) : stored_(store->size()) {
  if (stored_ > 0) parts_.push_back({std::move(store), 0});
}

const Examples::Part& Examples::part_of(int64_t number) const {
  const auto behind = std::ranges::upper_bound(parts_, number, {}, &Part::begin);
  return *(behind - 1);
}

ExampleView Examples::operator[](size_t index) const {
  const int64_t number = number_of(index);
  const Part& part = part_of(number);
  return part.store->at(number - part.begin);
}

ExampleView Examples::at(size_t index) const {
  check(index < size(), "examples: there is no example {}, there are {}", index, size());
  return (*this)[index];
}

Examples Examples::chosen(std::vector<int64_t> indices) const {
  for (int64_t& index : indices) {
    check(index >= 0 && index < static_cast<int64_t>(size()),
          "examples: there is no example {} to choose, there are {}", index, size());
    index = number_of(static_cast<size_t>(index));
  }
  Examples part = *this;
  part.chosen_ = std::make_shared<const std::vector<int64_t>>(std::move(indices));
  return part;
}

void Examples::append(const Examples& others) {
  if (chosen_ || others.chosen_) {
    std::vector<int64_t> numbers(size() + others.size());
    for (size_t i = 0; i < size(); ++i) numbers[i] = number_of(i);
    for (size_t i = 0; i < others.size(); ++i) numbers[size() + i] = stored_ + others.number_of(i);
    chosen_ = std::make_shared<const std::vector<int64_t>>(std::move(numbers));
  }
  const int64_t before = stored_;
  const std::vector<Part> added = others.parts_;  // `others` may be this list
  stored_ += others.stored_;
  for (const Part& part : added) parts_.push_back({part.store, before + part.begin});
}

void Examples::drop_pages() const {
  for (const Part& part : parts_) part.store->drop_pages();
}

void Examples::drop_pages_of(size_t index) const {
  const int64_t number = number_of(index);
  const Part& part = part_of(number);
  part.store->drop_pages_of(number - part.begin);
}

std::string examples_fingerprint(const std::vector<Example>& examples) {
  return examples_fingerprint(std::span(examples));
}

std::string examples_fingerprint(std::span<const Example> examples) {
  io::Hasher hasher;
  for (const Example& example : examples) add(example, hasher);
  return hasher.hex();
}

std::string examples_fingerprint(const Examples& examples) {
  io::Hasher hasher;
  for_each_example(examples, [&](const ExampleView& example) { add(example, hasher); });
  return hasher.hex();
}

std::string examples_fingerprint(const Examples& examples, size_t begin, size_t end) {
  io::Hasher hasher;
  for (size_t i = begin; i < end; ++i) add(examples[i], hasher);
  return hasher.hex();
}

std::string example_fingerprint(const ExampleView& example) {
  io::Hasher hasher;
  add(example, hasher);
  return hasher.hex();
}

}  // namespace qlora::data
