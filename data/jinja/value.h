// A value of the template language: what Python would hold. Scalars and strings are stored in
// place or shared; everything else is an Object that belongs to the running render.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "data/jinja/text.h"

namespace qlora::data::jinja {

class Object;
class Runtime;

struct Missing {};  // a variable not yet set, an argument not given
struct None {};
// jinja2.Undefined: prints as nothing, is false, has length 0; anything else done to it fails with
// `message`.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

class Value {
 public:
  Value() = default;  // Missing
  Value(None none) : held_(none) {}
  Value(TextRef text) : held_(std::move(text)) {}
  Value(Undefined undefined) : held_(std::move(undefined)) {}
  Value(Object& object) : held_(&object) {}
  static Value boolean(bool value) { return Value(Held(value)); }
  static Value integer(int64_t value) { return Value(Held(value)); }
  static Value real(double value) { return Value(Held(value)); }
  static Value undefined(std::string message) {
    return Undefined{std::make_shared<const std::string>(std::move(message))};
  }

  bool is_missing() const { return std::holds_alternative<Missing>(held_); }
  bool is_none() const { return std::holds_alternative<None>(held_); }
  bool is_undefined() const { return std::holds_alternative<Undefined>(held_); }
  bool is_boolean() const { return std::holds_alternative<bool>(held_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(held_); }  // not a boolean
  bool is_real() const { return std::holds_alternative<double>(held_); }
  bool is_text() const { return std::holds_alternative<TextRef>(held_); }
  bool is_number() const { return is_boolean() || is_integer() || is_real(); }
  // Booleans count as 0 and 1, as in Python.
  std::optional<int64_t> as_integer() const;
  std::optional<double> as_real() const;  // of any number

  bool boolean() const { return std::get<bool>(held_); }
  int64_t integer() const { return std::get<int64_t>(held_); }
  double real() const { return std::get<double>(held_); }
  const TextRef& text() const { return std::get<TextRef>(held_); }
  const std::string& bytes() const { return text()->bytes; }
  const std::string& undefined_message() const { return *std::get<Undefined>(held_).message; }
  bool is_markup() const { return is_text() && text()->markup; }

  Object* object() const {
    Object* const* held = std::get_if<Object*>(&held_);
    return held ? *held : nullptr;
  }
  // The object if it is a T, else nullptr.
  template <typename T>
  T* as() const {
    return dynamic_cast<T*>(object());
  }

  std::string_view type_name() const;  // Python's: "str", "NoneType", ...

 private:
  using Held = std::variant<Missing, None, Undefined, bool, int64_t, double, TextRef, Object*>;
  explicit Value(Held held) : held_(std::move(held)) {}
  Held held_;
};

using Values = std::vector<Value>;

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

// Protocols that every value takes part in. Failure if the value cannot.
bool is_true(Runtime& runtime, const Value& value);
std::optional<int64_t> length_of(Runtime& runtime, const Value& value);  // nothing: has no len()
bool is_iterable(const Value& value);
Values collect(Runtime& runtime, const Value& value);  // list(value)
bool is_callable(const Value& value);
Value call(Runtime& runtime, const Value& callee, const Arguments& arguments);

// value[key] and value.name as jinja2's sandbox looks them up: an Undefined if there is neither
// item nor attribute, or if Python's one would change the value or begins with an underscore.
Value item_of(Runtime& runtime, const Value& value, const Value& key);
Value attribute_of(Runtime& runtime, const Value& value, std::string_view name);
// Without the items of dicts; the filter attr.
Value own_attribute_of(Runtime& runtime, const Value& value, std::string_view name);

// str(value), and repr(value) behind `out`.
std::string to_text(Runtime& runtime, const Value& value);
void write_repr(Runtime& runtime, const Value& value, std::string& out);

}  // namespace qlora::data::jinja
