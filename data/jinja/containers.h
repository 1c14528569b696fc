// Python's containers, as far as templates see them. Nothing changes after it is made but
// namespaces (and a generator's position).
#pragma once

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/jinja/object.h"

namespace qlora::data::jinja {

// list and tuple.
class List : public Object {
 public:
  List(Values values, bool tuple) : is_tuple(tuple), items_(std::move(values)) {}
  std::string_view type_name() const override { return is_tuple ? "tuple" : "list"; }
  std::optional<int64_t> length(Runtime&) const override {
    return static_cast<int64_t>(items_.size());
  }
  bool is_iterable() const override { return true; }
  Values collect(Runtime& runtime) override;
  bool has_items() const override { return true; }
  std::optional<Value> item(Runtime& runtime, const Value& key) override;
  void write_repr(Runtime& runtime, std::string& out) override;

  virtual const Values& items() const { return items_; }
  const bool is_tuple;

 private:
  const Values items_;
};

// An int that does not fit in 64 bits. Templates write it, compare it and ask what it is; they
// cannot count with it.
class LongInteger : public Object {
 public:
  explicit LongInteger(std::string digits) : digits_(std::move(digits)) {}
  std::string_view type_name() const override { return "int"; }
  void write_repr(Runtime&, std::string& out) override { out += digits_; }
  const std::string& digits() const { return digits_; }  // decimal, behind its sign

 private:
  const std::string digits_;
};

// dict: keeps the order in which keys came.
class Dict : public Object {
 public:
  using Entry = std::pair<Value, Value>;
  std::string_view type_name() const override { return "dict"; }
  std::optional<int64_t> length(Runtime&) const override {
    return static_cast<int64_t>(entries_.size());
  }
  bool is_iterable() const override { return true; }
  Values collect(Runtime& runtime) override;
  bool has_items() const override { return true; }
  std::optional<Value> item(Runtime& runtime, const Value& key) override;
  void write_repr(Runtime& runtime, std::string& out) override;

  // While it is being made. Failure if the key is not hashable.
  void set(Runtime& runtime, const Value& key, Value value);
  // Failure if the key is not hashable; nullptr: there is none.
  const Value* find(Runtime& runtime, const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;  // hash key -> entry
};

class Range : public Object {
 public:
  Range(int64_t begin, int64_t end, int64_t step);
  std::string_view type_name() const override { return "range"; }
  std::optional<int64_t> length(Runtime&) const override { return length_; }
  bool is_iterable() const override { return true; }
  Values collect(Runtime& runtime) override;
  bool has_items() const override { return true; }
  std::optional<Value> item(Runtime& runtime, const Value& key) override;
  void write_repr(Runtime& runtime, std::string& out) override;

 private:
  int64_t begin_, end_, step_, length_;
};

// Gives its items once and has no length, so that a template sees no difference from Python's
// generators.
class Generator : public Object {
 public:
  explicit Generator(Values items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "generator"; }
  bool is_iterable() const override { return true; }
  Values collect(Runtime& runtime) override;  // what is left
  std::optional<Value> next(Runtime& runtime);

 private:
  Values items_;
  size_t position_ = 0;
};

// dict.keys(), .values() and .items().
class DictView : public Object {
 public:
  enum class Kind { kKeys, kValues, kItems };
  DictView(Dict& dict, Kind kind) : dict_(dict), kind_(kind) {}
  std::string_view type_name() const override;
  std::optional<int64_t> length(Runtime& runtime) const override { return dict_.length(runtime); }
  bool is_iterable() const override { return true; }
  Values collect(Runtime& runtime) override;
  void write_repr(Runtime& runtime, std::string& out) override;

 private:
  Dict& dict_;
  Kind kind_;
};

// namespace(): what {% set ns.name = ... %} writes to.
class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  std::optional<Value> attribute(Runtime&, std::string_view name) override;
  void set(Runtime& runtime, std::string_view name, Value value);
  void write_repr(Runtime& runtime, std::string& out) override;

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
};

// What identifies a value as a dict key or in a set: equal values, equal strings. Failure if the
// value is not hashable.
std::string hash_key(Runtime& runtime, const Value& value);

}  // namespace qlora::data::jinja
