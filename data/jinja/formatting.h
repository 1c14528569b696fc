// Python's two older ways to put values into text, and the number formats behind them.
#pragma once

#include "data/jinja/callables.h"

namespace qlora::data::jinja {

// "%s has %d" % values: a tuple, a dict for %(name)s, or one value.
Value format_percent(Runtime& runtime, const Value& format, const Value& values);

// "{} has {count:>5}".format(...)
Value format_braces(Runtime& runtime, const Value& format, const Arguments& arguments);

// One number or text as a format asks: sign, fill, width, precision.
struct FieldFormat {
  char fill = ' ';
  char align = '\0';  // < > ^ =; '\0': by type
  char sign = '-';    // - + or blank
  bool alternate = false, comma = false;
  int64_t width = 0;
  int64_t precision = -1;  // -1: none given
  char type = '\0';        // s d i x X o b e E f F g G % c; '\0': by value
};
std::string format_value(Runtime& runtime, const Value& value, const FieldFormat& field);

}  // namespace qlora::data::jinja
