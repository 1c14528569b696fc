// The two format languages: "%s" % x and "{}".format(x).
#include <optional>

#include "base/utf8.h"
#include "data/jinja/containers.h"
#include "data/jinja/formatting.h"
#include "data/jinja/numbers.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

constexpr int64_t kMostWidth = 1'000'000;

// Steps through a format; only ASCII has meaning in one.
struct Reader {
  std::string_view text;
  size_t index = 0;

  bool at_end() const { return index >= text.size(); }
  char peek() const { return at_end() ? '\0' : text[index]; }
  char take() {
    if (at_end()) fail_render("incomplete format");
    return text[index++];
  }
  bool skip(char c) { return peek() == c && (++index, true); }
  std::string_view take_until(char end) {
    const size_t found = text.find(end, index);
    if (found == std::string_view::npos) fail_render("a format has no '{}'", end);
    const std::string_view part = text.substr(index, found - index);
    index = found + 1;
    return part;
  }
  std::optional<int64_t> number() {
    std::optional<int64_t> value;
    for (; peek() >= '0' && peek() <= '9'; ++index) {
      value = value.value_or(0) * 10 + (peek() - '0');
      if (*value > kMostWidth) fail_render("a format's width must be at most {}", kMostWidth);
    }
    return value;
  }
};

class PercentFormat {
 public:
  PercentFormat(Runtime& runtime, std::string_view format, const Value& values)
      : runtime_(runtime), reader_{format}, values_(values) {
    const List* list = values.as<List>();
    if (list && list->is_tuple) {
      positional_ = list->items();
    } else {
      positional_ = {values};
    }
  }

  std::string run() {
    std::string out;
    while (!reader_.at_end()) {
      const char c = reader_.take();
      if (c != '%') {
        out += c;
      } else if (!reader_.skip('%')) {
        const std::string part = conversion();
        runtime_.expect_text(out.size() + part.size());
        out += part;
      } else {
        out += '%';
      }
    }
    const bool all_used = used_ == positional_.size() || named_ || values_.as<Dict>();
    if (!all_used) fail_render("not all arguments converted during string formatting");
    return out;
  }

 private:
  Value next_value() {
    if (used_ >= positional_.size()) fail_render("not enough arguments for format string");
    return positional_[used_++];
  }

  std::string conversion() {
    std::optional<Value> value;
    if (reader_.skip('(')) {
      const std::string name(reader_.take_until(')'));
      Dict* dict = values_.as<Dict>();
      if (!dict) fail_render("format requires a mapping");
      const Value* found = dict->find(name);
      if (!found) fail_render("the format's mapping has no '{}'", name);
      value = *found;
      named_ = true;
    }
    FieldFormat field = flags_and_width();
    field.type = reader_.take();
    if (!value) value = next_value();
    return convert(*value, field);
  }

  FieldFormat flags_and_width() {
    FieldFormat field;
    field.align = '>';
    for (bool more = true; more;) {
      switch (reader_.peek()) {
        case '-':
          field.align = '<';
          break;
        case '+':
          field.sign = '+';
          break;
        case ' ':
          field.sign = field.sign == '+' ? '+' : ' ';
          break;
        case '0':
          if (field.align == '>') field.align = '=';
          field.fill = '0';
          break;
        case '#':
          field.alternate = true;
          break;
        default:
          more = false;
      }
      if (more) reader_.take();
    }
    field.width = reader_.number().value_or(0);
    if (reader_.skip('.')) field.precision = reader_.number().value_or(0);
    if (field.align == '<') field.fill = ' ';
    return field;
  }

  std::string convert(const Value& value, FieldFormat field) {
    if (field.type == 'r') {
      std::string repr;
      write_repr(runtime_, value, repr);
      field.type = 's';
      return convert(runtime_.text(std::move(repr)), field);
    }
    if (std::string_view("sdiuxXoeEfFgGc").find(field.type) == std::string_view::npos) {
      fail_render("unsupported format character '{}'", field.type);
    }
    const bool is_integer = std::string_view("diu").find(field.type) != std::string_view::npos;
    if (field.type == 's' || field.type == 'c') {
      field.fill = ' ';
      if (field.align == '=') field.align = '>';
      if (field.type == 'c' && value.is_text() && value.text()->length == 1) field.type = 's';
      return format_value(runtime_, value, field);
    }
    if (!is_integer) return format_value(runtime_, value, field);
    field.type = 'd';
    field.precision = -1;
    if (!value.is_real()) return format_value(runtime_, value, field);
    return format_value(runtime_, Value::integer(to_int64(value.real())), field);
  }

  Runtime& runtime_;
  Reader reader_;
  const Value& values_;
  Values positional_;
  size_t used_ = 0;
  bool named_ = false;
};

class BraceFormat {
 public:
  BraceFormat(Runtime& runtime, std::string_view format, const Arguments& arguments)
      : runtime_(runtime), reader_{format}, arguments_(arguments) {}

  std::string run() {
    std::string out;
    while (!reader_.at_end()) {
      const char c = reader_.take();
      if ((c == '{' || c == '}') && reader_.skip(c)) {
        out += c;
      } else if (c == '{') {
        const std::string part = field();
        runtime_.expect_text(out.size() + part.size());
        out += part;
      } else if (c == '}') {
        fail_render("single '}}' encountered in format string");
      } else {
        out += c;
      }
    }
    return out;
  }

 private:
  // name.attribute[key]!r:format
  std::string field() {
    Reader inside{reader_.take_until('}')};
    const size_t name_end = std::min(inside.text.find_first_of(".[!:"), inside.text.size());
    Value value = argument(inside.text.substr(0, name_end));
    inside.index = name_end;
    while (inside.peek() == '.' || inside.peek() == '[') {
      if (inside.take() == '[') {
        const std::string_view key = inside.take_until(']');
        const auto index = parse_int(key, 10);
        value = item_of(runtime_, value,
                        index ? Value::integer(*index) : runtime_.text(std::string(key)));
        continue;
      }
      const size_t end =
          std::min(inside.text.find_first_of(".[!:", inside.index), inside.text.size());
      value = attribute_of(runtime_, value, inside.text.substr(inside.index, end - inside.index));
      inside.index = end;
    }
    if (inside.skip('!')) value = converted(value, inside.take());
    FieldFormat format;
    if (inside.skip(':')) format = specification(inside);
    if (!inside.at_end()) fail_render("invalid format specifier '{}'", inside.text);
    return format_value(runtime_, value, format);
  }

  Value argument(std::string_view name) {
    size_t index = next_;
    if (name.empty()) {
      ++next_;
    } else if (const auto number = parse_int(name, 10); number && *number >= 0) {
      index = static_cast<size_t>(*number);
    } else {
      for (const auto& [given, value] : arguments_.keyword) {
        if (given == name) return value;
      }
      fail_render("the format's field '{}' was not given", name);
    }
    if (index >= arguments_.positional.size()) {
      fail_render("the format's argument {} was not given", index);
    }
    return arguments_.positional[index];
  }

  Value converted(const Value& value, char how) {
    if (how == 's') return runtime_.text(to_text(runtime_, value));
    if (how != 'r') fail_render("unknown conversion specifier '{}'", how);
    std::string repr;
    write_repr(runtime_, value, repr);
    return runtime_.text(std::move(repr));
  }

  static bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

  static FieldFormat specification(Reader& reader) {
    FieldFormat field;
    const std::string_view rest = reader.text.substr(reader.index);
    if (rest.size() > 1 && is_align(rest[1])) field.fill = reader.take();
    if (is_align(reader.peek())) field.align = reader.take();
    if (reader.peek() == '+' || reader.peek() == '-' || reader.peek() == ' ') {
      field.sign = reader.take();
    }
    field.alternate = reader.skip('#');
    if (reader.skip('0') && field.align == '\0') {
      field.fill = '0';
      field.align = '=';
    }
    field.width = reader.number().value_or(0);
    field.comma = reader.skip(',');
    if (reader.skip('.')) {
      const auto precision = reader.number();
      if (!precision) fail_render("a format's precision must be a number");
      field.precision = *precision;
    }
    if (std::string_view("sdxXobeEfFgG%c").find(reader.peek()) != std::string_view::npos &&
        !reader.at_end()) {
      field.type = reader.take();
    }
    return field;
  }

  Runtime& runtime_;
  Reader reader_;
  const Arguments& arguments_;
  size_t next_ = 0;
};

}  // namespace

Value format_percent(Runtime& runtime, const Value& format, const Value& values) {
  return runtime.text(PercentFormat(runtime, format.bytes(), values).run(), format.is_markup());
}

Value format_braces(Runtime& runtime, const Value& format, const Arguments& arguments) {
  return runtime.text(BraceFormat(runtime, format.bytes(), arguments).run(), format.is_markup());
}

}  // namespace qlora::data::jinja
