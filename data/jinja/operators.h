// Python's operators on template values. Failure, in Python's words, where Python raises.
#pragma once

#include <compare>

#include "data/jinja/value.h"

namespace qlora::data::jinja {

Value add(Runtime& runtime, const Value& a, const Value& b);
Value subtract(Runtime& runtime, const Value& a, const Value& b);
Value multiply(Runtime& runtime, const Value& a, const Value& b);
Value divide(Runtime& runtime, const Value& a, const Value& b);        // /
Value floor_divide(Runtime& runtime, const Value& a, const Value& b);  // //
Value modulo(Runtime& runtime, const Value& a, const Value& b);        // also "..." % values
Value power(Runtime& runtime, const Value& a, const Value& b);
Value negate(Runtime& runtime, const Value& a);
Value positive(Runtime& runtime, const Value& a);

bool equal(Runtime& runtime, const Value& a, const Value& b);
// `symbol` is for the message when the two have no order.
std::partial_ordering compare(Runtime& runtime, const Value& a, const Value& b,
                              std::string_view symbol);
bool contains(Runtime& runtime, const Value& container, const Value& value);  // value in container

// container[begin:end:step]; Missing for what is left out.
Value slice(Runtime& runtime, const Value& container, const Value& begin, const Value& end,
            const Value& step);

}  // namespace qlora::data::jinja
