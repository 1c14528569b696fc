#include "data/jinja/callables.h"

#include <algorithm>

#include "data/jinja/runtime.h"

namespace qlora::data::jinja {

void Function::write_repr(Runtime&, std::string& out) {
  out.append("<function ").append(name_).append(">");
}

Parameters::Parameters(std::string_view callee, std::initializer_list<std::string_view> names,
                       const Arguments& arguments)
    : callee_(callee), names_(names), values_(names.size()) {
  if (arguments.positional.size() > names_.size()) {
    fail_render("{} takes at most {} argument(s), {} given", callee_, names_.size(),
                arguments.positional.size());
  }
  std::copy(arguments.positional.begin(), arguments.positional.end(), values_.begin());
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) fail_render("{} takes no argument '{}'", callee_, name);
    Value& slot = values_[static_cast<size_t>(found - names_.begin())];
    if (!slot.is_missing()) fail_render("{} got two values for argument '{}'", callee_, name);
    slot = value;
  }
}

const Value& Parameters::required(size_t i) const {
  if (!has(i)) fail_render("{} needs the argument '{}'", callee_, names_[i]);
  return values_[i];
}

int64_t Parameters::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  if (values_[i].is_undefined()) throw Failure(values_[i].undefined_message());
  const auto integer = values_[i].as_integer();
  if (!integer) {
    fail_render("{}'s argument '{}' must be an integer, not {}", callee_, names_[i],
                values_[i].type_name());
  }
  return *integer;
}

std::string Parameters::text(size_t i, std::string_view otherwise) const {
  if (!has(i)) return std::string(otherwise);
  if (values_[i].is_undefined()) throw Failure(values_[i].undefined_message());
  if (!values_[i].is_text()) {
    fail_render("{}'s argument '{}' must be a string, not {}", callee_, names_[i],
                values_[i].type_name());
  }
  return values_[i].bytes();
}

bool Parameters::truth(Runtime& runtime, size_t i, bool otherwise) const {
  return has(i) ? is_true(runtime, values_[i]) : otherwise;
}

}  // namespace qlora::data::jinja
