// What a template can call: global functions and bound methods; and how arguments are read.
#pragma once

#include <initializer_list>
#include <string_view>

#include "data/jinja/object.h"

namespace qlora::data::jinja {

using FunctionBody = Value (*)(Runtime&, const Arguments&);
// Filters and methods: the value before the bar or the dot, and the arguments.
using MethodBody = Value (*)(Runtime&, const Value&, const Arguments&);
using TestBody = bool (*)(Runtime&, const Value&, const Arguments&);

class Function : public Object {
 public:
  Function(std::string_view name, FunctionBody body) : name_(name), body_(body) {}
  std::string_view type_name() const override { return "function"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override {
    return body_(runtime, arguments);
  }
  void write_repr(Runtime& runtime, std::string& out) override;

 private:
  std::string_view name_;
  FunctionBody body_;
};

class Method : public Object {
 public:
  Method(Value self, MethodBody body) : self_(std::move(self)), body_(body) {}
  std::string_view type_name() const override { return "method"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override {
    return body_(runtime, self_, arguments);
  }

 private:
  Value self_;
  MethodBody body_;
};

// Arguments by the names of a function's parameters. Failure if there are too many, or unknown
// ones.
class Parameters {
 public:
  Parameters(std::string_view callee, std::initializer_list<std::string_view> names,
             const Arguments& arguments);
  bool has(size_t i) const { return !values_[i].is_missing(); }
  const Value& operator[](size_t i) const { return values_[i]; }  // Missing if not given
  const Value& required(size_t i) const;
  // With a default for those not given. Failure if they have another type.
  int64_t integer(size_t i, int64_t otherwise) const;
  std::string text(size_t i, std::string_view otherwise) const;
  bool truth(Runtime& runtime, size_t i, bool otherwise) const;

 private:
  std::string_view callee_;
  std::vector<std::string_view> names_;
  Values values_;
};

// By name; nullptr: there is none.
MethodBody find_filter(std::string_view name);
TestBody find_test(std::string_view name);
void define_globals(Runtime& runtime);  // range, dict, namespace, raise_exception, ...

}  // namespace qlora::data::jinja
