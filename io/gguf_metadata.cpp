// Typed reads of GGUF metadata.
#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "io/gguf.h"

namespace qlora::io {
namespace {

const GgufValue& value_of(const GgufFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) {
    fail<FormatError>("{}: the metadata must hold {}", file.path(), key);
  }
  return found->second;
}

template <typename T>
const T& typed(const GgufFile& file, const std::string& key, const char* type) {
  const T* value = std::get_if<T>(&value_of(file, key));
  if (!value) fail<FormatError>("{}: the metadata value {} must be {}", file.path(), key, type);
  return *value;
}

}  // namespace

const TensorView* GgufFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const std::string& GgufFile::text(const std::string& key) const {
  return typed<std::string>(*this, key, "a string");
}

int64_t GgufFile::integer(const std::string& key, int64_t low, int64_t high) const {
  const GgufValue& value = value_of(*this, key);
  int64_t number = 0;
  bool fits = false;
  if (const auto* i = std::get_if<int64_t>(&value)) {
    number = *i;
    fits = true;
  } else if (const auto* u = std::get_if<uint64_t>(&value)) {
    fits = *u <= static_cast<uint64_t>(INT64_MAX);
    number = static_cast<int64_t>(*u);
  }
  if (!fits || number < low || number > high) {
    fail<FormatError>("{}: the metadata value {} must be an integer from {} to {}", path_, key, low,
                      high);
  }
  return number;
}

double GgufFile::number(const std::string& key) const {
  const GgufValue& value = value_of(*this, key);
  if (const auto* f = std::get_if<float>(&value)) return std::stod(fmt::format("{}", *f));
  if (const auto* d = std::get_if<double>(&value)) return *d;
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  fail<FormatError>("{}: the metadata value {} must be a number", path_, key);
}

bool GgufFile::boolean(const std::string& key) const {
  return typed<bool>(*this, key, "true or false");
}

const std::vector<std::string>& GgufFile::texts(const std::string& key) const {
  return typed<std::vector<std::string>>(*this, key, "an array of strings");
}

std::vector<int64_t> GgufFile::integers(const std::string& key) const {
  const GgufValue& value = value_of(*this, key);
  if (const auto* u = std::get_if<std::vector<uint64_t>>(&value)) {
    for (const uint64_t number : *u) {
      if (number > static_cast<uint64_t>(INT64_MAX)) {
        fail<FormatError>("{}: the metadata value {} must hold integers below 2^63, found {}",
                          path_, key, number);
      }
    }
    return {u->begin(), u->end()};
  }
  if (const auto* flags = std::get_if<std::vector<uint8_t>>(&value))
    return {flags->begin(), flags->end()};
  if (const auto* unsigned_bytes = std::get_if<std::vector<std::byte>>(&value)) {
    std::vector<int64_t> integers(unsigned_bytes->size());
    std::ranges::transform(*unsigned_bytes, integers.begin(),
                           [](std::byte byte) { return std::to_integer<int64_t>(byte); });
    return integers;
  }
  return typed<std::vector<int64_t>>(*this, key, "an array of integers");
}

std::vector<float> GgufFile::numbers(const std::string& key) const {
  const GgufValue& value = value_of(*this, key);
  if (const auto* d = std::get_if<std::vector<double>>(&value)) {
    return {d->begin(), d->end()};
  }
  return typed<std::vector<float>>(*this, key, "an array of numbers");
}

std::string GgufFile::bytes(const std::string& key) const {
  std::string text;
  for (const int64_t byte : integers(key)) {
    if (byte < INT8_MIN || byte > UINT8_MAX)
      fail<FormatError>("{}: the metadata value {} must hold bytes, found {}", path_, key, byte);
    text += static_cast<char>(byte);
  }
  return text;
}

std::string GgufFile::text_or(const std::string& key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}

int64_t GgufFile::integer_or(const std::string& key, int64_t low, int64_t high,
                             int64_t otherwise) const {
  return has(key) ? integer(key, low, high) : otherwise;
}

double GgufFile::number_or(const std::string& key, double otherwise) const {
  return has(key) ? number(key) : otherwise;
}

bool GgufFile::boolean_or(const std::string& key, bool otherwise) const {
  return has(key) ? boolean(key) : otherwise;
}

}  // namespace qlora::io
