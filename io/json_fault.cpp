#include "io/json_fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace qlora::io {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

// "line 3, column 7": of the character that `byte`, from 0, belongs to.
std::string line_and_column(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, byte);
  const size_t line_begin = before.rfind('\n') + 1;  // 0 if there is none
  const auto in_line = before.substr(line_begin);
  const auto characters =
      std::ranges::count_if(in_line, [](char letter) { return !is_utf8_continuation(letter); });
  return fmt::format("line {}, column {}", 1 + std::ranges::count(before, '\n'), 1 + characters);
}

// What people write who think of another language.
std::string advice(std::string_view before, std::string_view rest) {
  if (rest.starts_with("NaN") || rest.starts_with("Infinity"))
    return "; JSON has no NaN or Infinity: write null";
  if (rest.starts_with('\'')) return "; in JSON texts stand in double quotes";
  if (rest.starts_with("True") || rest.starts_with("False") || rest.starts_with("None"))
    return "; JSON writes true, false and null";
  const size_t last = before.find_last_not_of(kBlank);
  if ((rest.starts_with(']') || rest.starts_with('}')) && last != std::string_view::npos &&
      before[last] == ',')
    return "; no comma stands behind the last member";
  return "";
}

// `place_of` names the place of a byte, from 0.
template <typename PlaceOf>
std::string fault(std::string_view what, std::string_view text, const std::exception& error,
                  const PlaceOf& place_of) {
  constexpr size_t kShown = 20;
  if (const auto invalid = find_invalid_utf8(text))
    return fmt::format(": {} is not UTF-8", place_of(*invalid));
  const auto* parse_error = dynamic_cast<const nlohmann::json::parse_error*>(&error);
  if (parse_error == nullptr) return ": a number is too large";
  if (text.find_first_not_of(kBlank) == std::string_view::npos)
    return fmt::format(": the {} is empty", what);
  const size_t byte = std::clamp<size_t>(parse_error->byte, 1, text.size() + 1) - 1;
  if (byte == text.size())
    return fmt::format(": the {} ends before its last bracket or quote is closed", what);
  const std::string_view all_before = text.substr(0, byte), rest = text.substr(byte);
  // Of the line of the fault, so that a message stays one line.
  const std::string_view before = utf8_end(all_before.substr(all_before.rfind('\n') + 1), kShown);
  const std::string_view found = utf8_beginning(rest.substr(0, rest.find('\n')), kShown);
  return fmt::format(
      " at {}, {}{}{}", place_of(byte),
      before.empty() ? "" : fmt::format("behind '{}': ", replace_invalid_utf8(before)),
      found.empty() ? "the line ends" : fmt::format("'{}'", replace_invalid_utf8(found)),
      advice(all_before, rest));
}

}  // namespace

std::string json_fault(std::string_view text, const std::exception& error) {
  return fault("text", text, error, [&](size_t byte) { return line_and_column(text, byte); });
}

std::string json_fault_in(std::string_view what, std::string_view text,
                          const std::exception& error) {
  return fault(what, text, error,
               [&](size_t byte) { return fmt::format("byte {} of the {}", byte + 1, what); });
}

}  // namespace qlora::io
