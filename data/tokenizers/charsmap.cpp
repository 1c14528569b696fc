#include "data/tokenizers/charsmap.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::data {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kIsValue = uint32_t{1} << 31;

uint32_t label(uint32_t unit) { return unit & (kIsValue | 255); }
bool ends_sequence(uint32_t unit) { return (unit >> 8 & 1) != 0; }
// Large ones are counted in 256.
uint32_t offset(uint32_t unit) { return unit >> 10 << ((unit & (1u << 9)) >> 6); }

}  // namespace

CharsMap::CharsMap(std::string_view bytes, std::string place) : place_(std::move(place)) {
  uint32_t size = 0;
  if (bytes.size() < sizeof size) reject();
  std::memcpy(&size, bytes.data(), sizeof size);
  bytes.remove_prefix(sizeof size);
  if (size == 0 || size % sizeof(uint32_t) != 0 || size > bytes.size()) reject();
  units_.resize(size / sizeof(uint32_t));
  std::memcpy(units_.data(), bytes.data(), size);
  replacements_ = bytes.substr(size);
  if (find_invalid_utf8(replacements_)) reject();
}

std::string CharsMap::apply(std::string_view text) const {
  std::string result;
  result.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Match match = longest_match(text.substr(at));
    const size_t length = match.length > 0 ? match.length : utf8_length(text[at]);
    result += match.length > 0 ? replacement(match.begin) : text.substr(at, length);
    at += length;
  }
  return result;
}

CharsMap::Match CharsMap::longest_match(std::string_view text) const {
  Match longest;
  uint32_t index = offset(unit(0));
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    index ^= byte;
    const uint32_t found = unit(index);
    if (byte == 0 || label(found) != byte) break;
    index ^= offset(found);
    const size_t length = i + 1;
    const bool is_whole = length == text.size() || !is_utf8_continuation(text[length]);
    if (ends_sequence(found) && is_whole) longest = {length, unit(index) & ~kIsValue};
  }
  return longest;
}

uint32_t CharsMap::unit(uint32_t index) const {
  if (index >= units_.size()) reject();
  return units_[index];
}

std::string_view CharsMap::replacement(uint32_t begin) const {
  if (begin >= replacements_.size() || is_utf8_continuation(replacements_[begin])) reject();
  const std::string_view rest = std::string_view(replacements_).substr(begin);
  return rest.substr(0, rest.find('\0'));
}

void CharsMap::reject() const {
  fail<FormatError>("{} must be the precompiled_charsmap of a sentencepiece model; it is damaged",
                    place_);
}

}  // namespace qlora::data
