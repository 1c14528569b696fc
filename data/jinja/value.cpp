#include "data/jinja/value.h"

#include <fmt/format.h>

#include "base/utf8.h"
#include "data/jinja/containers.h"
#include "data/jinja/methods.h"
#include "data/jinja/numbers.h"
#include "data/jinja/runtime.h"
#include "data/jinja/string_literal.h"

namespace qlora::data::jinja {

std::optional<int64_t> Value::as_integer() const {
  if (is_integer()) return integer();
  if (is_boolean()) return boolean() ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::as_real() const {
  if (is_real()) return real();
  if (const auto integer = as_integer()) return static_cast<double>(*integer);
  return std::nullopt;
}

std::string_view Value::type_name() const {
  if (is_none()) return "NoneType";
  if (is_undefined()) return "Undefined";
  if (is_boolean()) return "bool";
  if (is_integer()) return "int";
  if (is_real()) return "float";
  if (is_text()) return is_markup() ? "Markup" : "str";
  return object() ? object()->type_name() : "nothing";
}

bool is_true(Runtime& runtime, const Value& value) {
  if (value.is_boolean()) return value.boolean();
  if (value.is_integer()) return value.integer() != 0;
  if (value.is_real()) return value.real() != 0;
  if (value.is_text()) return !value.bytes().empty();
  return value.object() && value.object()->is_true(runtime);
}

std::optional<int64_t> length_of(Runtime& runtime, const Value& value) {
  if (value.is_text()) return static_cast<int64_t>(value.text()->length);
  if (value.is_undefined()) return 0;
  if (Object* object = value.object()) return object->length(runtime);
  return std::nullopt;
}

bool is_iterable(const Value& value) {
  if (value.is_text() || value.is_undefined()) return true;
  return value.object() && value.object()->is_iterable();
}

Values collect(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_text()) {
    const std::string& bytes = value.bytes();
    runtime.expect_items(value.text()->length);
    Values characters;
    for (size_t i = 0; i < bytes.size();) {
      const size_t length = utf8_length(bytes[i]);
      characters.push_back(runtime.text(bytes.substr(i, length)));
      i += length;
    }
    return characters;
  }
  if (!is_iterable(value)) fail_render("'{}' object is not iterable", value.type_name());
  return value.object()->collect(runtime);
}

bool is_callable(const Value& value) { return value.object() && value.object()->is_callable(); }

Value call(Runtime& runtime, const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) throw Failure(callee.undefined_message());
  if (!is_callable(callee)) fail_render("'{}' object is not callable", callee.type_name());
  return callee.object()->call(runtime, arguments);
}

Value Object::call(Runtime&, const Arguments&) {
  fail_render("'{}' object is not callable", type_name());
}

void Object::write_repr(Runtime&, std::string& out) {
  out.append("<").append(type_name()).append(" object>");
}

namespace {

std::string of_object(const Value& value) {
  if (value.is_none()) return "'None'";
  return fmt::format("'{} object'", value.type_name());
}

Value no_attribute(const Value& value, std::string_view name) {
  return Value::undefined(fmt::format("{} has no attribute '{}'", of_object(value), name));
}

Value unsafe(const Value& value, std::string_view name) {
  return Value::undefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe", name, value.type_name()));
}

// getattr(value, name): methods and what the object itself offers.
std::optional<Value> find_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  if (Object* object = value.object()) {
    if (auto found = object->attribute(runtime, name)) return found;
  }
  if (changes_its_object(value, name) || name.starts_with("__")) return unsafe(value, name);
  if (const MethodBody method = find_method(value, name)) {
    return runtime.make<Method>(value, method);
  }
  return std::nullopt;
}

std::optional<Value> find_item(Runtime& runtime, const Value& value, const Value& key) {
  if (Object* object = value.object()) return object->item(runtime, key);
  if (!value.is_text()) return std::nullopt;
  const auto index = key.as_integer();
  const auto length = static_cast<int64_t>(value.text()->length);
  if (!index || *index < -length || *index >= length) return std::nullopt;
  const int64_t begin = *index < 0 ? *index + length : *index;
  if (!value.text()->is_ascii()) runtime.charge(value.bytes().size() / 16);
  return runtime.text(slice_text(*value.text(), begin, begin + 1, 1));
}

}  // namespace

Value attribute_of(Runtime& runtime, const Value& value, std::string_view name) {
  if (value.is_undefined()) throw Failure(value.undefined_message());
  if (auto found = find_attribute(runtime, value, name)) return *found;
  const Dict* dict = value.as<Dict>();
  const Value* found = dict ? dict->find(name) : nullptr;
  return found ? *found : no_attribute(value, name);
}

Value own_attribute_of(Runtime& runtime, const Value& value, std::string_view name) {
  if (value.is_undefined()) throw Failure(value.undefined_message());
  if (auto found = find_attribute(runtime, value, name)) return *found;
  return no_attribute(value, name);
}

Value item_of(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_undefined()) throw Failure(value.undefined_message());
  if (auto found = find_item(runtime, value, key)) return *found;
  if (key.is_text()) {
    if (auto found = find_attribute(runtime, value, key.bytes())) return *found;
    return no_attribute(value, key.bytes());
  }
  std::string shown;
  write_repr(runtime, key, shown);
  return Value::undefined(fmt::format("{} has no element {}", value.type_name(), shown));
}

std::string to_text(Runtime& runtime, const Value& value) {
  if (value.is_text()) return value.bytes();
  if (value.is_undefined()) return "";
  std::string text;
  write_repr(runtime, value, text);
  return text;
}

void write_repr(Runtime& runtime, const Value& value, std::string& out) {
  runtime.charge(1);
  if (value.is_none()) {
    out += "None";
  } else if (value.is_boolean()) {
    out += value.boolean() ? "True" : "False";
  } else if (value.is_integer()) {
    out += std::to_string(value.integer());
  } else if (value.is_real()) {
    out += float_repr(value.real());
  } else if (value.is_text()) {
    runtime.expect_text(out.size() + value.bytes().size());
    write_string_repr(value.bytes(), out);
  } else if (Object* object = value.object()) {
    const DepthGuard guard(runtime);
    object->write_repr(runtime, out);
  } else {
    out += "Undefined";
  }
}

}  // namespace qlora::data::jinja
