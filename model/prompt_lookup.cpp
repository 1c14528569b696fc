#include "model/prompt_lookup.h"

#include <algorithm>

#include "base/error.h"

namespace qlora::model {

uint64_t PromptLookup::key_of_last(size_t count) const {
  uint64_t key = 0;
  for (size_t i = text_.size() - count; i < text_.size(); ++i)
    key = key * 0x9E3779B97F4A7C15u + static_cast<uint32_t>(text_[i]);  // odd: 2^64 / golden ratio
  return key;
}

void PromptLookup::add(int32_t token) {
  if (most_ == 0) return;
  if (silent_guess_ == token) length_ = 1;
  silent_guess_.reset();
  for (Places& places : places_)
    if (text_.size() >= places.count) places.behind[key_of_last(places.count)] = text_.size();
  text_.push_back(token);
}

size_t PromptLookup::place_of_next() const {
  for (const Places& places : places_) {
    if (text_.size() < places.count) continue;
    const auto found = places.behind.find(key_of_last(places.count));
    if (found != places.behind.end()) return found->second;
  }
  return text_.size();
}

std::vector<int32_t> PromptLookup::guess(int64_t room) {
  given_ = 0;
  const size_t next = place_of_next();
  if (next == text_.size()) return {};
  if (length_ == 0) {
    silent_guess_ = text_[next];
    return {};
  }
  // Past the text's end its guessed continuation goes on.
  std::vector<int32_t> tokens;
  given_ = std::min(length_, static_cast<size_t>(std::max<int64_t>(room, 0)));
  for (size_t i = next; i < next + given_; ++i)
    tokens.push_back(i < text_.size() ? text_[i] : tokens[i - text_.size()]);
  return tokens;
}

void PromptLookup::judge(int64_t came_true) {
  const auto count = static_cast<size_t>(came_true);
  check(0 < given_ && count <= given_, "PromptLookup: {} tokens of {} came true", came_true,
        given_);
  if (count < given_)
    length_ = count;
  else
    length_ = std::max(length_, std::min(most_, 2 * given_ + 1));
}

}  // namespace qlora::model
