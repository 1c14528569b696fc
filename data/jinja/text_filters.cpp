#include <algorithm>

#include "base/utf8.h"
#include "data/jinja/containers.h"
#include "data/jinja/filters.h"
#include "data/jinja/formatting.h"
#include "data/jinja/letter_case.h"
#include "data/jinja/methods.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"
#include "data/jinja/split.h"

namespace qlora::data::jinja::filters {
namespace {

// The value as text (markup stays it).
Value soft_text(Runtime& runtime, const Value& value) {
  return value.is_text() ? value : runtime.text(to_text(runtime, value));
}

Value change_case(Runtime& runtime, const Value& value, const Arguments& arguments,
                  std::string (*change)(std::string_view)) {
  const Parameters given("this filter", {}, arguments);
  const Value text = soft_text(runtime, value);
  runtime.charge(text.bytes().size() / 4);
  return runtime.text(change(text.bytes()), text.is_markup());
}

}  // namespace

Value upper(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return change_case(runtime, value, arguments, upper_case);
}

Value lower(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return change_case(runtime, value, arguments, lower_case);
}

Value capitalize(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return change_case(runtime, value, arguments, jinja::capitalize);
}

// Words begin at white space, hyphens and opening brackets; unlike str.title's.
Value title(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("title", {}, arguments);
  const std::string text = to_text(runtime, value);
  runtime.charge(text.size() / 4);
  const auto parts_words = [](char32_t code) {
    return is_python_space(code) ||
           std::u32string_view(U"-({[<").find(code) != std::u32string::npos;
  };
  const std::u32string codes = to_code_points(text);
  std::string result;
  for (size_t i = 0; i < codes.size();) {
    size_t end = i;
    const bool is_gap = parts_words(codes[i]);
    while (end < codes.size() && parts_words(codes[end]) == is_gap) ++end;
    const std::u32string_view part = std::u32string_view(codes).substr(i, end - i);
    result += upper_case(to_bytes(part.substr(0, 1))) + lower_case(to_bytes(part.substr(1)));
    i = end;
  }
  return runtime.text(std::move(result));
}

Value trim(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("trim", {"chars"}, arguments);
  const Value text = soft_text(runtime, value);
  std::u32string removable;
  const bool any_space = !given.has(0) || given[0].is_none();
  if (!any_space) removable = to_code_points(given.text(0, ""));
  return runtime.text(
      std::string(strip(text.bytes(), true, true, any_space ? nullptr : &removable)),
      text.is_markup());
}

Value string(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("string", {}, arguments);
  return soft_text(runtime, value);
}

Value safe(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("safe", {}, arguments);
  return runtime.text(to_text(runtime, value), true);
}

Value force_escape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("escape", {}, arguments);
  const std::string text = to_text(runtime, value);
  constexpr size_t kLongest = 5;  // &quot; and the like for one byte
  runtime.expect_text(text.size() * kLongest);
  return runtime.text(escape_html(text), true);
}

Value escape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return value.is_markup() ? value : force_escape(runtime, value, arguments);
}

Value replace(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("replace", {"old", "new", "count"}, arguments);
  given.required(1);
  const bool all = !given.has(2) || given[2].is_none();
  return replace_in(runtime, runtime.text(to_text(runtime, value)),
                    runtime.text(to_text(runtime, given.required(0))),
                    runtime.text(to_text(runtime, given[1])), all ? -1 : given.integer(2, -1));
}

Value indent(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("indent", {"width", "first", "blank"}, arguments);
  if (value.is_undefined()) throw Failure(value.undefined_message());
  if (!value.is_text()) fail_render("indent needs a string, not {}", value.type_name());
  constexpr int64_t kMostWidth = 10'000;
  const bool is_text = given.has(0) && given[0].is_text();
  const int64_t width = is_text ? 0 : given.integer(0, 4);
  if (width > kMostWidth) fail_render("indent's width must be at most {}", kMostWidth);
  const std::string margin =
      is_text ? given[0].bytes()
              : std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  const bool first = given.truth(runtime, 1, false), blank = given.truth(runtime, 2, false);
  // The added line end makes one more line of a text that ends with one.
  const std::vector<std::string> lines = split_lines(value.bytes() + "\n", false);
  if (margin.size() > Limits::kTextBytes / lines.size()) {
    runtime.expect_text(Limits::kTextBytes + 1);
  }
  runtime.expect_text(value.bytes().size() + lines.size() * margin.size());
  std::string result = first ? margin : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result += '\n';
    if (i > 0 && (blank || !lines[i].empty())) result += margin;
    result += lines[i];
  }
  return runtime.text(std::move(result), value.is_markup());
}

Value center(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("center", {"width"}, arguments);
  Arguments width;
  width.positional.push_back(given.has(0) ? given[0] : Value::integer(80));
  return find_text_method("center")(runtime, soft_text(runtime, value), width);
}

Value format(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty()) {
    fail_render("format cannot take arguments with and without names at once");
  }
  const Value text = soft_text(runtime, value);
  if (arguments.keyword.empty()) {
    return format_percent(runtime, text, runtime.tuple(arguments.positional));
  }
  Dict& named = runtime.make<Dict>();
  for (const auto& [name, one] : arguments.keyword) named.set(runtime, runtime.text(name), one);
  return format_percent(runtime, text, named);
}

Value truncate(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("truncate", {"length", "killwords", "end", "leeway"}, arguments);
  const Value text = soft_text(runtime, value);
  const std::string end = given.text(2, "...");
  const int64_t length = given.integer(0, 255);
  const int64_t leeway = given.has(3) && !given[3].is_none() ? given.integer(3, 5) : 5;
  const auto end_length = static_cast<int64_t>(count_code_points(end));
  if (length < end_length) fail_render("truncate's length must be at least {}", end_length);
  if (leeway < 0) fail_render("truncate's leeway must not be negative");
  const auto held = static_cast<int64_t>(text.text()->length);
  if (held <= length || held - length <= leeway) return text;
  std::string kept = slice_text(*text.text(), 0, length - end_length, 1);
  if (!given.truth(runtime, 1, false))
    kept = kept.substr(0, std::min(kept.rfind(' '), kept.size()));
  return runtime.text(kept + end);
}

Value wordcount(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("wordcount", {}, arguments);
  const std::string text = to_text(runtime, value);
  runtime.charge(text.size() / 4);
  int64_t count = 0;
  bool inside = false;
  for (const char32_t code : to_code_points(text)) {
    const bool is_word = code == '_' || is_alphanumeric(code);
    if (is_word && !inside) ++count;
    inside = is_word;
  }
  return Value::integer(count);
}

}  // namespace qlora::data::jinja::filters
