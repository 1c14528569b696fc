// What a value that is neither scalar nor string can do. Every object belongs to the Runtime that
// made it and dies with it, so that no template can build a cycle or a chain that is dear to free.
#pragma once

#include "data/jinja/value.h"

namespace qlora::data::jinja {

class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  virtual std::string_view type_name() const = 0;
  virtual std::optional<int64_t> length(Runtime&) const { return std::nullopt; }
  virtual bool is_true(Runtime& runtime) const {
    const auto count = length(runtime);
    return !count || *count > 0;
  }
  virtual bool is_iterable() const { return false; }
  virtual Values collect(Runtime&) { return {}; }  // called only if is_iterable
  virtual bool is_callable() const { return false; }
  virtual Value call(Runtime& runtime, const Arguments& arguments);
  // object[key] and object.name; nothing: there is no such item or attribute. Methods that Python
  // types share are in methods.h.
  virtual bool has_items() const { return false; }
  virtual std::optional<Value> item(Runtime&, const Value&) { return std::nullopt; }
  virtual std::optional<Value> attribute(Runtime&, std::string_view) { return std::nullopt; }
  virtual void write_repr(Runtime& runtime, std::string& out);
};

}  // namespace qlora::data::jinja
