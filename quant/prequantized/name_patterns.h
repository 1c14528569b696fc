// Names and patterns of modules, of which a config may have as many as a model has modules: a
// mixture's extra_config names each layer of each expert. A pattern that is a name but for escapes,
// dots, a ^ in front or a $ at the end is looked up as names are; only others are run as regular
// expressions, and each module is asked about once.
#pragma once

#include <compare>
#include <cstddef>
#include <map>
#include <mutex>
#include <regex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/json.h"

namespace qlora::quant {

constexpr size_t kLongestPattern = 1000;

class NamePatterns {
 public:
  // What is added gets the number of those added before it.
  void add_name(const std::string& name);
  // A regular expression of ECMAScript that must match from the start of a name and need not reach
  // its end. FormatError of `node`, which holds it, if it is none or longer than kLongestPattern.
  void add_pattern(const std::string& text, const io::JsonNode& node);

  // The numbers of those that match, in order. Safe to call from several threads.
  std::vector<size_t> matching(const std::string& name) const;

 private:
  // What patterns that are looked up have in common.
  struct Shape {
    size_t length = 0;        // of the names they match, or of what these begin with
    bool is_whole = false;    // nothing may follow
    std::vector<size_t> any;  // places of any character; a dot in the texts
    auto operator<=>(const Shape&) const = default;
  };
  using Texts = std::unordered_map<std::string, std::vector<size_t>>;

  static bool read_literal(std::string_view pattern, Shape& shape, std::string& text);
  std::vector<size_t> find(const std::string& name) const;

  size_t count_ = 0;
  std::map<Shape, Texts> literals_;
  std::vector<std::pair<size_t, std::regex>> patterns_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, std::vector<size_t>> found_;  // by name
};

}  // namespace qlora::quant
