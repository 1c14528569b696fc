#include "data/bad_rows.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::data {
namespace {

constexpr int64_t kMostLines = 10;  // those of further kinds come on top
constexpr size_t kMostKinds = 10;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string without_numbers(const std::string& reason) {
  std::string pattern;
  for (const char c : reason) {
    if (!is_digit(c))
      pattern += c;
    else if (!pattern.ends_with('#'))
      pattern += '#';
  }
  return pattern;
}

// What is wrong, without what to do about it.
std::string beginning_of(const std::string& reason) {
  constexpr size_t kLongest = 100;
  return shortened_utf8(reason.substr(0, reason.find("; ")), kLongest);
}

}  // namespace

void BadRows::add(const std::string& place, const std::string& reason) {
  if (count_++ == 0) first_reason_ = reason;
  alike_ = alike_ && reason == first_reason_;
  const std::string pattern = without_numbers(reason);
  const auto kind = std::ranges::find(kinds_, pattern, &Kind::pattern);
  const bool is_known = kind != kinds_.end(), is_new = !is_known && kinds_.size() < kMostKinds;
  if (count_ <= kMostLines || is_new)
    lines_.push_back(fmt::format("{}: {}", place, reason));
  else
    ++(is_known ? kind->without_line : of_other_kinds_);
  if (is_new) kinds_.push_back({pattern, fmt::format("{} ({})", place, beginning_of(reason))});
}

// "6 further rows: 5 like rows.jsonl:3 (the field 'output' is empty: there is nothing to train
// on); 1 like ..."
std::string BadRows::further() const {
  const int64_t rows = count_ - static_cast<int64_t>(lines_.size());
  std::vector<std::string> parts;
  for (const Kind& kind : kinds_)
    if (kind.without_line > 0)
      parts.push_back(fmt::format("{} like {}", kind.without_line, kind.first));
  if (of_other_kinds_ > 0) parts.push_back(fmt::format("{} for other reasons", of_other_kinds_));
  return fmt::format("{} further row{}: {}", rows, rows == 1 ? "" : "s", fmt::join(parts, "; "));
}

std::string BadRows::to_text(const RowsRead& read) const {
  if (count_ == 0) return "";
  const std::string& first = lines_.front();
  if (count_ == 1) return first;
  const std::string rows =
      fmt::format("the {}{} rows of {}", read.are_all ? "" : "first ", read.rows, read.path);
  if (are_all_alike(read.rows))
    return fmt::format("{}\nthe same is wrong with all of {}", first, rows);
  std::string text = fmt::format("{}", fmt::join(lines_, "\n"));
  if (count_ > static_cast<int64_t>(lines_.size())) text += "\n" + further();
  return text + fmt::format(
                    "\n{} of {} are refused: mend them as their lines say, or take them out of the "
                    "data; none of them is passed over",
                    count_, rows);
}

void BadRows::throw_if_any(const RowsRead& read) const {
  if (!empty()) throw FormatError(to_text(read));
}

}  // namespace qlora::data
