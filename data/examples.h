// Examples in an order, wherever they lie: in memory, or in a file of the cache that is mapped
// (cache/example_file.h). A list is cheap to copy and to take a part of, since it shares what it
// lists; only the bytes of examples that are looked at are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/example.h"

namespace qlora::data {

// An example that lies elsewhere; as long as that does.
struct ExampleView {
  std::span<const TokenId> tokens;
  std::span<const uint8_t> supervised;
  int64_t row = -1;
  int32_t source = 0;
  std::span<const TokenId> encoded = {};
  Side side = Side::kNone;
  int64_t counted = -1;  // what num_supervised() gives, where that is known; -1: it is counted

  ExampleView() = default;
  ExampleView(const Example& example);

  // As Example's.
  int64_t length() const {
    return static_cast<int64_t>(encoded.empty() ? tokens.size()
                                                : encoded.size() + tokens.size() - 1);
  }
  int64_t num_supervised() const;
  Example copy() const;
};

// Where examples lie.
class ExampleStore {
 public:
  virtual ~ExampleStore() = default;
  virtual int64_t size() const = 0;
  // `index` is in [0, size()).
  virtual ExampleView at(int64_t index) const = 0;
  // The bytes that were looked at, of all examples or of one, need not stay in memory: they are
  // read again when they are needed. Does nothing where they lie in memory alone.
  virtual void drop_pages() const {}
  virtual void drop_pages_of(int64_t) const {}
};

class Examples {
 public:
  class Iterator;

  Examples() = default;
  Examples(std::vector<Example> examples);
  Examples(std::initializer_list<Example> examples);
  Examples(std::shared_ptr<const ExampleStore> store);

  size_t size() const { return chosen_ ? chosen_->size() : static_cast<size_t>(stored_); }
  bool empty() const { return size() == 0; }
  ExampleView operator[](size_t index) const;
  // Error if there is no such example.
  ExampleView at(size_t index) const;
  ExampleView front() const { return at(0); }
  ExampleView back() const { return at(size() - 1); }
  Iterator begin() const;
  Iterator end() const;

  // Those at `indices` of this list, in that order.
  Examples chosen(std::vector<int64_t> indices) const;
  void append(const Examples& others);

  // As ExampleStore's; `index` counts in this list.
  void drop_pages() const;
  void drop_pages_of(size_t index) const;

 private:
  struct Part {
    std::shared_ptr<const ExampleStore> store;
    int64_t begin;  // number of its first example among those of all parts
  };
  int64_t number_of(size_t index) const {
    return chosen_ ? (*chosen_)[index] : static_cast<int64_t>(index);
  }
  const Part& part_of(int64_t number) const;

  std::vector<Part> parts_;
  int64_t stored_ = 0;                                  // examples of all parts
  std::shared_ptr<const std::vector<int64_t>> chosen_;  // numbers of them; null: all, in order
};

class Examples::Iterator {
 public:
  using difference_type = std::ptrdiff_t;
  using value_type = ExampleView;
  using reference = ExampleView;
  using pointer = void;
  using iterator_category = std::input_iterator_tag;
  using iterator_concept = std::forward_iterator_tag;

  Iterator() = default;
  Iterator(const Examples& examples, size_t index) : examples_(&examples), index_(index) {}
  ExampleView operator*() const { return (*examples_)[index_]; }
  Iterator& operator++() {
    ++index_;
    return *this;
  }
  Iterator operator++(int) { return {*examples_, index_++}; }
  bool operator==(const Iterator& other) const { return index_ == other.index_; }

 private:
  const Examples* examples_ = nullptr;
  size_t index_ = 0;
};

inline Examples::Iterator Examples::begin() const { return {*this, 0}; }
inline Examples::Iterator Examples::end() const { return {*this, size()}; }

// Calls visit(example) for all of a list in order, for work that looks at the tokens: what was read
// is dropped from memory on the way and at the end.
template <typename Visit>
void for_each_example(const Examples& examples, const Visit& visit) {
  constexpr int64_t kTokensInMemory = int64_t{16} << 20;
  int64_t tokens = 0;
  for (const ExampleView& example : examples) {
    visit(example);
    tokens += example.length();
    if (tokens < kTokensInMemory) continue;
    examples.drop_pages();
    tokens = 0;
  }
  examples.drop_pages();
}

// As examples_fingerprint() of the same examples in memory; of all, of those in [begin, end), and
// of one.
std::string examples_fingerprint(const Examples& examples);
std::string examples_fingerprint(const Examples& examples, size_t begin, size_t end);
std::string example_fingerprint(const ExampleView& example);

}  // namespace qlora::data
