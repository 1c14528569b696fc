// JSON of dataset rows and messages with whole numbers of any length, as Python reads them: an
// account number of twenty digits must come out of a template as it went in. A whole number beyond
// 64 bits is kept by its digits; every other value is what nlohmann's own parser makes of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// Throws nlohmann::json::parse_error.
nlohmann::ordered_json exact_json(std::string_view text);
// A whole file; `what` it holds stands in messages: "a JSON array of messages". FormatError, with
// line and column, if it is no JSON or nests deeper than 200. IoError if it cannot be read.
nlohmann::ordered_json read_exact_json(const std::string& path, const std::string& what);
// A value with is_discarded() if the text is not JSON.
nlohmann::ordered_json exact_json_or_discarded(std::string_view text);

// The decimal digits, with their sign, of a whole number that does not fit in int64; nothing for
// any other value.
std::optional<std::string> long_integer(const nlohmann::ordered_json& value);

}  // namespace qlora::data
