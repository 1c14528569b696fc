#include "data/jinja/json_text.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "data/exact_json.h"
#include "data/jinja/containers.h"
#include "data/jinja/numbers.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"

namespace qlora::data::jinja {
namespace {

Value text_from_json(Runtime& runtime, const std::string& text) {
  if (find_invalid_utf8(text)) fail_render("a text given to the template must be valid UTF-8");
  return runtime.text(text);
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const Parameters& given) : runtime_(runtime) {
    ensure_ascii_ = given.truth(runtime, 0, false);
    if (given.has(1) && !given[1].is_none()) {
      indent_ = given[1].is_text() ? given.text(1, "")
                                   : std::string(static_cast<size_t>(std::clamp<int64_t>(
                                                     given.integer(1, 0), 0, kMostIndent)),
                                                 ' ');
      item_separator_ = ",";
    }
    if (given.has(2) && !given[2].is_none()) read_separators(given[2]);
    sort_keys_ = given.truth(runtime, 3, false);
  }

  std::string write(const Value& value) {
    append(value);
    return std::move(out_);
  }

 private:
  static constexpr int64_t kMostIndent = 1000;

  void read_separators(const Value& value) {
    const Values pair = collect(runtime_, value);
    if (pair.size() != 2 || !pair[0].is_text() || !pair[1].is_text()) {
      fail_render("tojson's separators must be two strings");
    }
    item_separator_ = pair[0].bytes();
    key_separator_ = pair[1].bytes();
  }

  void append(const Value& value) {
    runtime_.charge(1);
    if (value.is_none()) {
      out_ += "null";
    } else if (value.is_boolean()) {
      out_ += value.boolean() ? "true" : "false";
    } else if (value.is_integer()) {
      out_ += std::to_string(value.integer());
    } else if (value.is_real()) {
      append_real(value.real());
    } else if (value.is_text()) {
      append_text(value.bytes());
    } else if (const auto* integer = value.as<LongInteger>()) {
      out_ += integer->digits();
    } else if (const List* list = value.as<List>()) {
      append_list(*list);
    } else if (const Dict* dict = value.as<Dict>()) {
      append_dict(*dict);
    } else {
      fail_render("Object of type {} is not JSON serializable", value.type_name());
    }
  }

  void append_real(double value) {
    if (std::isfinite(value)) {
      out_ += float_repr(value);
    } else {
      out_ += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    }
  }

  void append_text(std::string_view text) {
    runtime_.expect_text(text.size());
    if (out_.size() > Limits::kTextBytes) runtime_.expect_text(out_.size());
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const size_t begin = i;
      const char32_t code = next_code_point(text, i);
      append_character(code, text.substr(begin, i - begin));
    }
    out_ += '"';
  }

  void append_character(char32_t code, std::string_view bytes) {
    static constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const size_t known = code < 0x80 ? kEscaped.find(static_cast<char>(code)) : kEscaped.npos;
    if (known != kEscaped.npos) {
      out_ += '\\';
      out_ += kLetters[known];
    } else if (code < 0x20 || (ensure_ascii_ && code > 0x7E && code < 0x10000)) {
      append_unit(code);
    } else if (ensure_ascii_ && code >= 0x10000) {
      append_unit(0xD800 + ((code - 0x10000) >> 10));
      append_unit(0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
      out_ += bytes;
    }
  }

  void append_unit(char32_t unit) { out_ += fmt::format("\\u{:04x}", static_cast<uint32_t>(unit)); }

  void new_line() {
    if (!indent_) return;
    const size_t bytes = 1 + indent_->size() * static_cast<size_t>(level_);
    runtime_.expect_text(out_.size() + bytes > Limits::kTextBytes ? Limits::kTextBytes + 1 : bytes);
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += *indent_;
  }

  // The brackets and what stands between the `count` members that `member` writes.
  template <typename F>
  void append_members(char open, char close, size_t count, const F& member) {
    const DepthGuard guard(runtime_);
    out_ += open;
    ++level_;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out_ += item_separator_;
      new_line();
      member(i);
    }
    --level_;
    if (count > 0) new_line();
    out_ += close;
  }

  void append_list(const List& list) {
    append_members('[', ']', list.items().size(), [&](size_t i) { append(list.items()[i]); });
  }

  void append_dict(const Dict& dict) {
    std::vector<Dict::Entry> entries = dict.entries();
    runtime_.charge(entries.size());
    if (sort_keys_) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
        return compare(runtime_, a.first, b.first, "<") < 0;
      });
    }
    append_members('{', '}', entries.size(), [&](size_t i) {
      append_key(entries[i].first);
      out_ += key_separator_;
      append(entries[i].second);
    });
  }

  void append_key(const Value& key) {
    if (key.is_text()) return append_text(key.bytes());
    if ((key.object() && !key.as<LongInteger>()) || key.is_undefined()) {
      fail_render("keys must be str, int, float, bool or None, not {}", key.type_name());
    }
    out_ += '"';
    append(key);
    out_ += '"';
  }

  Runtime& runtime_;
  bool ensure_ascii_ = false, sort_keys_ = false;
  std::optional<std::string> indent_;
  std::string item_separator_ = ", ", key_separator_ = ": ";
  int level_ = 0;
  std::string out_;
};

}  // namespace

Value from_json(Runtime& runtime, const Json& json) {
  const DepthGuard guard(runtime);
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
    case Json::value_t::binary:
      if (auto digits = long_integer(json)) return runtime.make<LongInteger>(std::move(*digits));
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string:
      return text_from_json(runtime, json.get_ref<const std::string&>());
    case Json::value_t::array: {
      Values items;
      for (const Json& item : json) items.push_back(from_json(runtime, item));
      return runtime.list(std::move(items));
    }
    case Json::value_t::object: {
      Dict& dict = runtime.make<Dict>();
      for (const auto& [key, value] : json.items()) {
        dict.set(runtime, text_from_json(runtime, key), from_json(runtime, value));
      }
      return dict;
    }
    default:
      return None{};
  }
}

Value to_json(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"},
                         arguments);
  return runtime.text(JsonWriter(runtime, given).write(value));
}

}  // namespace qlora::data::jinja
