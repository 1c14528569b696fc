#include "quant/prequantized/name_patterns.h"

#include <fmt/format.h>

#include <algorithm>

namespace qlora::quant {
namespace {

constexpr std::string_view kSyntax = "^$\\.*+?()[]{}|";

std::regex compiled(const std::string& text, const io::JsonNode& node) {
  if (text.size() > kLongestPattern)
    node.reject(fmt::format("a pattern of at most {} characters", kLongestPattern));
  try {
    return std::regex(text, std::regex::ECMAScript);
  } catch (const std::regex_error&) {
    node.reject(fmt::format("under a regular expression of ECMAScript, which '{}' is not", text));
  }
}

}  // namespace

void NamePatterns::add_name(const std::string& name) {
  literals_[{.length = name.size(), .is_whole = true, .any = {}}][name].push_back(count_++);
}

void NamePatterns::add_pattern(const std::string& text, const io::JsonNode& node) {
  Shape shape;
  std::string literal;
  if (text.size() <= kLongestPattern && read_literal(text, shape, literal))
    literals_[shape][literal].push_back(count_++);
  else
    patterns_.emplace_back(count_++, compiled(text, node));
}

bool NamePatterns::read_literal(std::string_view pattern, Shape& shape, std::string& text) {
  if (pattern.starts_with('^')) pattern.remove_prefix(1);
  if (pattern.ends_with('$') && !pattern.ends_with("\\$")) {
    shape.is_whole = true;
    pattern.remove_suffix(1);
  }
  for (size_t index = 0; index < pattern.size(); ++index) {
    const bool is_escaped = pattern[index] == '\\';
    if (is_escaped && ++index == pattern.size()) return false;
    const char c = pattern[index];
    const bool is_any = c == '.' && !is_escaped;
    const bool is_syntax = kSyntax.find(c) != std::string_view::npos;
    if (is_any)
      shape.any.push_back(text.size());
    else if (is_syntax != is_escaped)
      return false;
    text += c;
  }
  shape.length = text.size();
  return true;
}

std::vector<size_t> NamePatterns::matching(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto known = found_.find(name);
  return known != found_.end() ? known->second : found_.emplace(name, find(name)).first->second;
}

std::vector<size_t> NamePatterns::find(const std::string& name) const {
  std::vector<size_t> numbers;
  for (const auto& [shape, texts] : literals_) {
    if (shape.is_whole ? name.size() != shape.length : name.size() < shape.length) continue;
    std::string key = name.substr(0, shape.length);
    const auto ends_line = [&](size_t place) { return key[place] == '\n' || key[place] == '\r'; };
    if (std::ranges::any_of(shape.any, ends_line)) continue;  // which a dot does not match
    for (const size_t place : shape.any) key[place] = '.';
    if (const auto text = texts.find(key); text != texts.end())
      numbers.insert(numbers.end(), text->second.begin(), text->second.end());
  }
  for (const auto& [number, pattern] : patterns_)
    if (std::regex_search(name, pattern, std::regex_constants::match_continuous))
      numbers.push_back(number);
  std::ranges::sort(numbers);
  return numbers;
}

}  // namespace qlora::quant
