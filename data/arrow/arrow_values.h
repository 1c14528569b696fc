// Values of Arrow's columns as JSON.
//
//   null, bool, integers, floats         the same; NaN is null, as pandas has it
//   string, large_string, string_view    a string
//   list, large_list, fixed_size_list    an array
//   struct, map with text as keys        an object. Members that are null are left out: Arrow gives
//                                        every struct the members of all, and templates ask whether
//                                        one is there
//   date, time, timestamp, decimal       a string, as Arrow writes them
//   dictionary, extension                the value that is encoded or stored
//   binary                               no counterpart; "3 bytes" where it is asked for all the
//   same
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>

#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// Whether a type, with all that it nests, has a counterpart; binary values have none.
bool has_json_counterpart(const arrow::DataType& type);

// The value at `index` of an array of such a type.
nlohmann::ordered_json json_value(const arrow::Array& array, int64_t index);

}  // namespace qlora::data
