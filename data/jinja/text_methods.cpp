// Methods of str.
#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "data/jinja/containers.h"
#include "data/jinja/formatting.h"
#include "data/jinja/letter_case.h"
#include "data/jinja/methods.h"
#include "data/jinja/runtime.h"
#include "data/jinja/split.h"

namespace qlora::data::jinja {
namespace {

void charge_for(Runtime& runtime, const Value& text) { runtime.charge(text.bytes().size() / 4); }

template <std::string (*change)(std::string_view)>
Value changed_case(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("a string's method", {}, arguments);
  charge_for(runtime, self);
  return runtime.text(change(self.bytes()), self.is_markup());
}

template <bool left, bool right>
Value strip_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("strip", {"chars"}, arguments);
  std::u32string removable;
  const bool any_space = !given.has(0) || given[0].is_none();
  if (!any_space) removable = to_code_points(given.text(0, ""));
  return runtime.text(
      std::string(strip(self.bytes(), left, right, any_space ? nullptr : &removable)),
      self.is_markup());
}

template <bool from_right>
Value split_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("split", {"sep", "maxsplit"}, arguments);
  const int64_t limit = given.integer(1, -1);
  charge_for(runtime, self);
  Values parts;
  const auto keep = [&](std::string_view part) {
    parts.push_back(runtime.text(std::string(part)));
  };
  std::vector<std::string_view> found;
  if (!given.has(0) || given[0].is_none()) {
    found = split_at_space(self.bytes(), limit, from_right);
  } else {
    const std::string separator = given.text(0, "");
    if (separator.empty()) fail_render("empty separator");
    found = split_at(self.bytes(), separator, limit, from_right);
  }
  runtime.expect_items(found.size());
  std::for_each(found.begin(), found.end(), keep);
  return runtime.list(std::move(parts));
}

Value split_lines_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("splitlines", {"keepends"}, arguments);
  charge_for(runtime, self);
  Values lines;
  for (std::string& line : split_lines(self.bytes(), given.truth(runtime, 0, false))) {
    lines.push_back(runtime.text(std::move(line)));
  }
  return runtime.list(std::move(lines));
}

template <bool from_right>
Value partition_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("partition", {"sep"}, arguments);
  given.required(0);
  const std::string separator = given.text(0, "");
  if (separator.empty()) fail_render("empty separator");
  const std::string& bytes = self.bytes();
  const size_t found = from_right ? bytes.rfind(separator) : bytes.find(separator);
  if (found == std::string::npos) {
    const Value empty = runtime.text("");
    return runtime.tuple(from_right ? Values{empty, empty, self} : Values{self, empty, empty});
  }
  return runtime.tuple({runtime.text(bytes.substr(0, found)), runtime.text(separator),
                        runtime.text(bytes.substr(found + separator.size()))});
}

// The part of self that start and end (in characters) leave; where it begins, in bytes.
struct Part {
  std::string_view bytes;
  size_t offset;
  bool is_valid;  // start does not lie behind the end of self
};

Part part_between(const Value& self, const Parameters& given, size_t first) {
  const Text& text = *self.text();
  const auto length = static_cast<int64_t>(text.length);
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (!given.has(i) || given[i].is_none()) return otherwise;
    const int64_t value = given.integer(i, otherwise);
    return value < 0 ? std::max<int64_t>(value + length, 0) : value;
  };
  const int64_t begin = bound(first, 0), end = std::min(bound(first + 1, length), length);
  if (begin > length || begin > end) return {"", 0, false};
  const size_t from = byte_offset(text, static_cast<size_t>(begin));
  const size_t to = byte_offset(text, static_cast<size_t>(end));
  return {std::string_view(text.bytes).substr(from, to - from), from, true};
}

template <bool at_end>
Value starts_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given(at_end ? "endswith" : "startswith", {"prefix", "start", "end"}, arguments);
  const Part part = part_between(self, given, 1);
  const auto fits = [&](const Value& affix) {
    if (affix.is_undefined()) throw Failure(affix.undefined_message());
    if (!affix.is_text()) {
      fail_render("startswith and endswith need a string or a tuple of them, not {}",
                  affix.type_name());
    }
    runtime.charge(affix.bytes().size() / 16);
    return part.is_valid &&
           (at_end ? part.bytes.ends_with(affix.bytes()) : part.bytes.starts_with(affix.bytes()));
  };
  const List* list = given.required(0).as<List>();
  if (!list || !list->is_tuple) return Value::boolean(fits(given[0]));
  return Value::boolean(std::any_of(list->items().begin(), list->items().end(), fits));
}

enum class Search { kFind, kIndex };

template <Search how, bool from_right>
Value find_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("find", {"sub", "start", "end"}, arguments);
  given.required(0);
  charge_for(runtime, self);
  const Part part = part_between(self, given, 1);
  const std::string wanted = given.text(0, "");
  const size_t found = from_right ? part.bytes.rfind(wanted) : part.bytes.find(wanted);
  if (!part.is_valid || found == std::string_view::npos) {
    if (how == Search::kIndex) fail_render("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(static_cast<int64_t>(code_point_index(*self.text(), part.offset + found)));
}

Value count_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("count", {"sub", "start", "end"}, arguments);
  given.required(0);
  charge_for(runtime, self);
  const Part part = part_between(self, given, 1);
  if (!part.is_valid) return Value::integer(0);
  return Value::integer(static_cast<int64_t>(count_text(part.bytes, given.text(0, ""))));
}

Value replace_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("replace", {"old", "new", "count"}, arguments);
  given.required(1);
  return replace_in(runtime, self, given.required(0), given[1], given.integer(2, -1));
}

Value join_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("join", {"iterable"}, arguments);
  std::string result;
  bool is_first = true;
  for (const Value& item : collect(runtime, given.required(0))) {
    if (item.is_undefined()) throw Failure(item.undefined_message());
    if (!item.is_text()) fail_render("join needs strings, found {}", item.type_name());
    runtime.expect_text(item.bytes().size() + self.bytes().size());
    if (!is_first) result += self.bytes();
    result += item.bytes();
    is_first = false;
    if (result.size() > Limits::kTextBytes) runtime.expect_text(result.size());
  }
  return runtime.text(std::move(result), self.is_markup());
}

template <bool (*holds)(char32_t)>
Value all_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("a string's method", {}, arguments);
  charge_for(runtime, self);
  const std::u32string codes = to_code_points(self.bytes());
  return Value::boolean(!codes.empty() && std::all_of(codes.begin(), codes.end(), holds));
}

Value printable_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("isprintable", {}, arguments);
  charge_for(runtime, self);
  const std::u32string codes = to_code_points(self.bytes());
  return Value::boolean(std::all_of(codes.begin(), codes.end(), is_printable));
}

Value title_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("istitle", {}, arguments);
  charge_for(runtime, self);
  return Value::boolean(is_title(self.bytes()));
}

// isupper, islower: some cased letter, and none of the other case.
template <bool (*holds)(char32_t)>
Value case_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("a string's method", {}, arguments);
  charge_for(runtime, self);
  bool any = false;
  for (const char32_t code : to_code_points(self.bytes())) {
    if (is_cased(code) && !holds(code)) return Value::boolean(false);
    any = any || holds(code);
  }
  return Value::boolean(any);
}

bool is_ascii(char32_t code) { return code < 0x80; }

template <bool prefix>
Value remove_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given(prefix ? "removeprefix" : "removesuffix", {"affix"}, arguments);
  given.required(0);
  const std::string affix = given.text(0, "");
  std::string_view bytes = self.bytes();
  if (prefix && bytes.starts_with(affix)) bytes.remove_prefix(affix.size());
  if (!prefix && bytes.ends_with(affix)) bytes.remove_suffix(affix.size());
  return runtime.text(std::string(bytes));
}

// ljust, rjust, center
template <char align>
Value pad_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("a padding method", {"width", "fillchar"}, arguments);
  given.required(0);
  const std::u32string fill = to_code_points(given.text(1, " "));
  if (fill.size() != 1) fail_render("the fill character must be exactly one character long");
  const auto length = static_cast<int64_t>(self.text()->length);
  const int64_t width = given.integer(0, 0);
  if (width <= length) return self;
  const int64_t missing = width - length;
  // Python's center puts the odd character left only if the width is odd too.
  const int64_t left = align == '<'   ? 0
                       : align == '>' ? missing
                                      : missing / 2 + (missing & width & 1);
  if (missing > static_cast<int64_t>(Limits::kTextBytes / 4)) {
    runtime.expect_text(Limits::kTextBytes + 1);
  }
  runtime.expect_text(static_cast<size_t>(missing) * 4);
  std::u32string padded(static_cast<size_t>(left), fill[0]);
  std::string result = to_bytes(padded) + self.bytes();
  padded.assign(static_cast<size_t>(missing - left), fill[0]);
  return runtime.text(result + to_bytes(padded));
}

Value zero_fill_method(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("zfill", {"width"}, arguments);
  given.required(0);
  const auto length = static_cast<int64_t>(self.text()->length);
  const int64_t missing = given.integer(0, 0) - length;
  if (missing <= 0) return self;
  if (missing > static_cast<int64_t>(Limits::kTextBytes)) {
    runtime.expect_text(Limits::kTextBytes + 1);
  }
  runtime.expect_text(static_cast<size_t>(missing));
  const std::string& bytes = self.bytes();
  const size_t sign = !bytes.empty() && (bytes[0] == '+' || bytes[0] == '-') ? 1 : 0;
  return runtime.text(bytes.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') +
                      bytes.substr(sign));
}

// Methods that str has and templates have no use for: there, but not to be called.
Value unsupported(Runtime&, const Value&, const Arguments&) {
  fail_render("this method of strings is not supported in templates");
}

struct Entry {
  std::string_view name;
  MethodBody body;
};
constexpr std::array kMethods = {
    Entry{"capitalize", changed_case<capitalize>},
    Entry{"casefold", unsupported},
    Entry{"center", pad_method<'^'>},
    Entry{"count", count_method},
    Entry{"encode", unsupported},
    Entry{"endswith", starts_method<true>},
    Entry{"expandtabs", unsupported},
    Entry{"find", find_method<Search::kFind, false>},
    Entry{"format", format_braces},
    Entry{"format_map", unsupported},
    Entry{"index", find_method<Search::kIndex, false>},
    Entry{"isalnum", all_method<is_alphanumeric>},
    Entry{"isalpha", all_method<is_alphabetic>},
    Entry{"isascii", all_method<is_ascii>},
    Entry{"isdecimal", all_method<is_decimal>},
    Entry{"isdigit", all_method<is_digit>},
    Entry{"isidentifier", unsupported},
    Entry{"islower", case_method<is_lower>},
    Entry{"isnumeric", all_method<is_numeric>},
    Entry{"isprintable", printable_method},
    Entry{"isspace", all_method<is_python_space>},
    Entry{"istitle", title_method},
    Entry{"isupper", case_method<is_upper>},
    Entry{"join", join_method},
    Entry{"ljust", pad_method<'<'>},
    Entry{"lower", changed_case<lower_case>},
    Entry{"lstrip", strip_method<true, false>},
    Entry{"maketrans", unsupported},
    Entry{"partition", partition_method<false>},
    Entry{"removeprefix", remove_method<true>},
    Entry{"removesuffix", remove_method<false>},
    Entry{"replace", replace_method},
    Entry{"rfind", find_method<Search::kFind, true>},
    Entry{"rindex", find_method<Search::kIndex, true>},
    Entry{"rjust", pad_method<'>'>},
    Entry{"rpartition", partition_method<true>},
    Entry{"rsplit", split_method<true>},
    Entry{"rstrip", strip_method<false, true>},
    Entry{"split", split_method<false>},
    Entry{"splitlines", split_lines_method},
    Entry{"startswith", starts_method<false>},
    Entry{"strip", strip_method<true, true>},
    Entry{"swapcase", changed_case<swap_case>},
    Entry{"title", changed_case<title_case>},
    Entry{"translate", unsupported},
    Entry{"upper", changed_case<upper_case>},
    Entry{"zfill", zero_fill_method},
};

}  // namespace

MethodBody find_text_method(std::string_view name) {
  const auto* found = std::find_if(kMethods.begin(), kMethods.end(),
                                   [&](const Entry& e) { return e.name == name; });
  return found == kMethods.end() ? nullptr : found->body;
}

}  // namespace qlora::data::jinja
