#include "data/readers/turn_marks.h"

#include "base/error.h"
#include "data/readers/row.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

constexpr const char* kLossMask = "loss_mask";
constexpr const char* kMasked = "masked";  // true: context only

std::optional<bool> as_switch(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number() && (value == 0 || value == 1)) return value == 1;
  return std::nullopt;
}

// Whether a message or a part of one, which errors call `what`, is to be trained by its marks.
std::optional<bool> mark_of(const Json& marked, const std::string& what) {
  std::optional<bool> verdict;
  std::string first;
  for (const std::string& key : turn_mark_keys()) {
    const auto mark = marked.find(key);
    if (mark == marked.end() || mark->is_null()) continue;
    const auto value = as_switch(*mark);
    if (!value) {
      fail<FormatError>("the {} of {} must be 0 or 1, or false or true, found {}", key, what,
                        shown(*mark));
    }
    const bool trained = key == kMasked ? !*value : *value;
    if (verdict && *verdict != trained) {
      fail<FormatError>(
          "{} is to be trained by one of its marks and not by the other: {} is {}, {} is {}; "
          "remove one",
          what, first, shown(marked[first]), key, shown(*mark));
    }
    if (!verdict) first = key;
    verdict = trained;
  }
  return verdict;
}

}  // namespace

const std::vector<std::string>& turn_mark_keys() {
  static const std::vector<std::string> keys = {"weight", "train",   "training", "trainable",
                                                "loss",   kLossMask, kMasked};
  return keys;
}

std::optional<bool> training_mark(const Json& message, size_t index) {
  return mark_of(message, fmt::format("message {}", index));
}

void take_part_marks(Json& message, size_t index) {
  const Json& parts = message["content"];
  const std::optional<bool> own = training_mark(message, index);
  const bool unmarked = own.value_or(message["role"] == "assistant");
  std::optional<bool> verdict = own;
  bool any = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto mark = mark_of(parts[i], fmt::format("part {} of message {}", i, index));
    const bool trained = mark.value_or(unmarked);
    if (verdict && *verdict != trained) {
      fail<FormatError>(
          "by the marks of message {} its part {} is {}, unlike the rest: a message is trained, or "
          "left out, as a whole; mark all of its parts alike, or remove the row",
          index, i, trained ? "trained" : "context only");
    }
    verdict = trained;
    any = any || mark.has_value();
  }
  if (any && !own) message[kLossMask] = *verdict;
}

void mark_turns(const Json& loss_mask, Json& messages) {
  if (!loss_mask.is_array() || loss_mask.size() != messages.size()) {
    fail<FormatError>(
        "the row's loss_mask must be a list with an entry for each of the {} messages, found {}",
        messages.size(),
        loss_mask.is_array() ? fmt::format("{} entries", loss_mask.size())
                             : describe_type(loss_mask));
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) continue;  // which the check of the messages complains about
    const auto own = messages[i].find(kLossMask);
    if (own != messages[i].end() && !own->is_null() && *own != loss_mask[i]) {
      fail<FormatError>("the row's loss_mask is {} for message {}, the message's own is {}",
                        shown(loss_mask[i]), i, shown(*own));
    }
    messages[i][kLossMask] = loss_mask[i];
  }
}

}  // namespace qlora::data
