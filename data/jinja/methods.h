// Methods of Python's str, dict, list and tuple that templates may call.
#pragma once

#include "data/jinja/callables.h"

namespace qlora::data::jinja {

// nullptr: values of this type have no such method.
MethodBody find_method(const Value& value, std::string_view name);

// Methods such as list.append, which the sandbox keeps from templates.
bool changes_its_object(const Value& value, std::string_view name);

// By type; nullptr: no such method.
MethodBody find_text_method(std::string_view name);

}  // namespace qlora::data::jinja
