#include "data/jinja/containers.h"

#include <fmt/format.h>

#include "data/jinja/numbers.h"
#include "data/jinja/runtime.h"
#include "data/jinja/string_literal.h"

namespace qlora::data::jinja {
namespace {

std::optional<size_t> position_in(size_t length, const Value& key) {
  const auto index = key.as_integer();
  const auto count = static_cast<int64_t>(length);
  if (!index || *index < -count || *index >= count) return std::nullopt;
  return static_cast<size_t>(*index < 0 ? *index + count : *index);
}

void write_items(Runtime& runtime, const Values& items, std::string& out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    write_repr(runtime, items[i], out);
  }
}

}  // namespace

Values List::collect(Runtime& runtime) {
  runtime.charge(items_.size());
  return items_;
}

std::optional<Value> List::item(Runtime&, const Value& key) {
  const auto position = position_in(items().size(), key);
  return position ? std::optional(items()[*position]) : std::nullopt;
}

void List::write_repr(Runtime& runtime, std::string& out) {
  out += is_tuple ? '(' : '[';
  write_items(runtime, items(), out);
  if (is_tuple && items().size() == 1) out += ',';
  out += is_tuple ? ')' : ']';
}

std::string hash_key(Runtime& runtime, const Value& value) {
  if (value.is_text()) {
    runtime.charge(value.bytes().size() / 16);
    return "s" + value.bytes();
  }
  if (const auto integer = value.as_integer()) return fmt::format("i{}", *integer);
  if (value.is_real()) {
    const double real = value.real();
    const bool is_whole = real >= -9.2e18 && real <= 9.2e18 &&
                          real == static_cast<double>(static_cast<int64_t>(real));
    return is_whole ? fmt::format("i{}", static_cast<int64_t>(real))
                    : fmt::format("f{}", float_repr(real));
  }
  if (value.is_none()) return "n";
  if (value.is_undefined()) return "u";
  if (const auto* integer = value.as<LongInteger>()) return "i" + integer->digits();
  const List* list = value.as<List>();
  if (list && list->is_tuple) {
    const DepthGuard guard(runtime);
    std::string key = "(";
    for (const Value& item : list->items()) {
      const std::string part = hash_key(runtime, item);
      runtime.expect_text(key.size() + part.size());
      key += fmt::format("{}:{}", part.size(), part);
    }
    return key;
  }
  if (!value.object() || value.as<Dict>() || list) {
    fail_render("unhashable type: '{}'", value.type_name());
  }
  return fmt::format("o{}", static_cast<const void*>(value.object()));
}

void Dict::set(Runtime& runtime, const Value& key, Value value) {
  if (key.is_undefined()) throw Failure(key.undefined_message());
  runtime.charge(8);
  const auto [found, is_new] = index_.try_emplace(hash_key(runtime, key), entries_.size());
  if (is_new) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[found->second].second = std::move(value);
  }
}

const Value* Dict::find(Runtime& runtime, const Value& key) const {
  const auto found = index_.find(hash_key(runtime, key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

const Value* Dict::find(std::string_view key) const {
  std::string hashed = "s";
  const auto found = index_.find(hashed.append(key));
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

Values Dict::collect(Runtime& runtime) {
  runtime.charge(entries_.size());
  Values keys;
  for (const Entry& entry : entries_) keys.push_back(entry.first);
  return keys;
}

std::optional<Value> Dict::item(Runtime& runtime, const Value& key) {
  if (key.as<Dict>() || (key.as<List>() && !key.as<List>()->is_tuple)) return std::nullopt;
  const Value* found = find(runtime, key);
  return found ? std::optional(*found) : std::nullopt;
}

void Dict::write_repr(Runtime& runtime, std::string& out) {
  out += '{';
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (i > 0) out += ", ";
    jinja::write_repr(runtime, entries_[i].first, out);
    out += ": ";
    jinja::write_repr(runtime, entries_[i].second, out);
  }
  out += '}';
}

Range::Range(int64_t begin, int64_t end, int64_t step) : begin_(begin), end_(end), step_(step) {
  if (step == 0) fail_render("range() arg 3 must not be zero");
  // Unsigned, so that no distance overflows.
  const auto distance = step > 0 ? static_cast<uint64_t>(end) - static_cast<uint64_t>(begin)
                                 : static_cast<uint64_t>(begin) - static_cast<uint64_t>(end);
  const uint64_t stride =
      step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  const bool is_empty = step > 0 ? begin >= end : begin <= end;
  const uint64_t length = is_empty ? 0 : (distance - 1) / stride + 1;
  if (length > static_cast<uint64_t>(Limits::kRangeLength)) {
    fail_render("a range must have at most {} items", Limits::kRangeLength);
  }
  length_ = static_cast<int64_t>(length);
}

Values Range::collect(Runtime& runtime) {
  runtime.charge(static_cast<size_t>(length_));
  Values values;
  for (int64_t i = 0; i < length_; ++i) values.push_back(Value::integer(begin_ + i * step_));
  return values;
}

std::optional<Value> Range::item(Runtime&, const Value& key) {
  const auto position = position_in(static_cast<size_t>(length_), key);
  if (!position) return std::nullopt;
  return Value::integer(begin_ + static_cast<int64_t>(*position) * step_);
}

void Range::write_repr(Runtime&, std::string& out) {
  out += step_ == 1 ? fmt::format("range({}, {})", begin_, end_)
                    : fmt::format("range({}, {}, {})", begin_, end_, step_);
}

std::optional<Value> Generator::next(Runtime& runtime) {
  if (position_ >= items_.size()) return std::nullopt;
  runtime.before_change([this, old = position_] { position_ = old; });
  return items_[position_++];
}

Values Generator::collect(Runtime& runtime) {
  runtime.before_change([this, old = position_] { position_ = old; });
  Values rest(items_.begin() + static_cast<std::ptrdiff_t>(position_), items_.end());
  position_ = items_.size();
  return rest;
}

std::string_view DictView::type_name() const {
  if (kind_ == Kind::kKeys) return "dict_keys";
  return kind_ == Kind::kValues ? "dict_values" : "dict_items";
}

Values DictView::collect(Runtime& runtime) {
  runtime.charge(dict_.entries().size());
  Values values;
  for (const auto& [key, value] : dict_.entries()) {
    if (kind_ == Kind::kKeys) values.push_back(key);
    if (kind_ == Kind::kValues) values.push_back(value);
    if (kind_ == Kind::kItems) values.push_back(runtime.tuple({key, value}));
  }
  return values;
}

void DictView::write_repr(Runtime& runtime, std::string& out) {
  out.append(type_name()).append("([");
  write_items(runtime, collect(runtime), out);
  out += "])";
}

std::optional<Value> Namespace::attribute(Runtime&, std::string_view name) {
  for (const auto& [held, value] : attributes_) {
    if (held == name) return value;
  }
  return std::nullopt;
}

namespace {

// Whether a template cannot tell them apart; false for what is not looked at closely.
bool are_one(const Value& a, const Value& b) {
  if (a.is_none() && b.is_none()) return true;
  if (a.is_boolean() && b.is_boolean()) return a.boolean() == b.boolean();
  if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
  return a.is_text() && b.is_text() && a.is_markup() == b.is_markup() && a.bytes() == b.bytes();
}

}  // namespace

void Namespace::set(Runtime& runtime, std::string_view name, Value value) {
  if (name.starts_with('_')) {
    fail_render("a namespace's attribute must not begin with an underscore, found '{}'", name);
  }
  runtime.charge(1 + attributes_.size() / 16);
  if (value.object()) runtime.note_kept_object();
  for (size_t i = 0; i < attributes_.size(); ++i) {
    if (attributes_[i].first != name) continue;
    if (are_one(attributes_[i].second, value)) return;
    const Value old = std::exchange(attributes_[i].second, std::move(value));
    runtime.before_change([this, i, old] { attributes_[i].second = old; });
    return;
  }
  runtime.charge(4 + name.size() / 16);
  runtime.before_change([this] { attributes_.pop_back(); });
  attributes_.emplace_back(name, std::move(value));
}

void Namespace::write_repr(Runtime& runtime, std::string& out) {
  out += "<Namespace {";
  for (size_t i = 0; i < attributes_.size(); ++i) {
    if (i > 0) out += ", ";
    write_string_repr(attributes_[i].first, out);
    out += ": ";
    jinja::write_repr(runtime, attributes_[i].second, out);
  }
  out += "}>";
}

}  // namespace qlora::data::jinja
