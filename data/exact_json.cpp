#include "data/exact_json.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "io/file_kind.h"
#include "io/json_fault.h"
#include "io/read_file.h"

namespace qlora::data {
namespace {

using Json = nlohmann::ordered_json;

// Marks a binary value that holds the digits of a number.
constexpr Json::binary_t::subtype_type kDigits = 0x64696769;

// Builds the value that the parser tells of, event by event.
class Builder {
 public:
  // Stops, with false, at what nests deeper than `deepest`.
  explicit Builder(Json& root, size_t deepest = std::numeric_limits<size_t>::max())
      : root_(root), deepest_(deepest) {}

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(int64_t value) { return put(value); }
  bool number_unsigned(uint64_t value) { return put(value); }
  bool number_float(double value, const std::string& written) {
    if (written.find_first_of(".eE") != std::string::npos) return put(value);
    return put(Json::binary({written.begin(), written.end()}, kDigits));
  }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t& value) { return put(std::move(value)); }
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    member_ = &(*open_.back())[name];
    return true;
  }
  template <typename Error>
  [[noreturn]] bool parse_error(size_t, const std::string&, const Error& error) {
    throw error;
  }

 private:
  Json& place(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_object()) return *member_ = std::move(value);
    open_.back()->push_back(std::move(value));
    return open_.back()->back();
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (open_.size() == deepest_) return false;
    open_.push_back(&place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  const size_t deepest_;
  std::vector<Json*> open_;  // none moves while it is open: only the innermost one grows
  Json* member_ = nullptr;   // of the innermost object
};

}  // namespace

Json exact_json(std::string_view text) {
  Json root;
  Builder builder(root);
  Json::sax_parse(text, &builder);
  return root;
}

Json read_exact_json(const std::string& path, const std::string& what) {
  constexpr size_t kDeepest = 200;
  const std::string text = io::read_bytes(path);
  if (const std::string kind = io::text_file_kind(text); !kind.empty())
    fail<FormatError>("{} must be {}, but is {}", path, what, kind);
  Json root;
  Builder builder(root, kDeepest);
  try {
    if (!Json::sax_parse(text, &builder))
      fail<FormatError>("{}: JSON may nest {} deep, this nests deeper", path, kDeepest);
  } catch (const Json::exception& error) {
    fail<FormatError>("{} must be {}, and is not valid JSON{}", path, what,
                      io::json_fault(text, error));
  }
  return root;
}

Json exact_json_or_discarded(std::string_view text) {
  try {
    return exact_json(text);
  } catch (const Json::exception&) {
    return Json(Json::value_t::discarded);
  }
}

std::optional<std::string> long_integer(const Json& value) {
  if (value.is_binary() && value.get_binary().has_subtype() &&
      value.get_binary().subtype() == kDigits) {
    return std::string(value.get_binary().begin(), value.get_binary().end());
  }
  const bool is_long = value.is_number_unsigned() &&
                       value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()};
  if (!is_long) return std::nullopt;
  return std::to_string(value.get<uint64_t>());
}

}  // namespace qlora::data
