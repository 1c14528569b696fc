// Rows of token ids: {"input_ids", "labels"} as transformers' data sets store them (labels repeat
// the ids, -100 where nothing is trained), or {"input_ids", "mask"} with 0 and 1, which other tools
// call loss_mask (Megatron), completion_mask (TRL) or assistant_masks (transformers). Without one
// of them every token is trained. For a model with an encoder labels are the answer's own ids, of
// any number. Padding, told by a 0 in attention_mask, is cut off at either end.
#include <limits>
#include <utility>

#include "base/error.h"
#include "data/example.h"
#include "data/readers/reader.h"
#include "io/json_text.h"

namespace qlora::data {
namespace {

std::vector<TokenId> integers(const Row& row, const std::string& name, int64_t least,
                              size_t length) {
  const Json& values = row.array(name);
  std::vector<TokenId> result;
  result.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].is_number_integer()) {
      fail<FormatError>("'{}'[{}] must be an integer, found {}", row.file_field(name), i,
                        describe_type(values[i]));
    }
    const bool huge = values[i].is_number_unsigned() &&
                      values[i].get<uint64_t>() > uint64_t{std::numeric_limits<TokenId>::max()};
    const int64_t value = huge ? std::numeric_limits<int64_t>::max() : values[i].get<int64_t>();
    if (value < least || value > std::numeric_limits<TokenId>::max()) {
      fail<FormatError>("'{}'[{}] must be at least {} and fit in 32 bits, found {}",
                        row.file_field(name), i, least, io::json_text(values[i]));
    }
    result.push_back(static_cast<TokenId>(value));
  }
  if (length != 0 && result.size() != length) {
    fail<FormatError>("'{}' must be as long as '{}' ({}), found {}", row.file_field(name),
                      row.file_field("input_ids"), length, result.size());
  }
  return result;
}

std::vector<uint8_t> mask_of(const Row& row, const std::vector<TokenId>& tokens) {
  std::vector<uint8_t> supervised(tokens.size(), 1);
  std::string name;
  for (const char* other : {"labels", "mask", "loss_mask", "completion_mask", "assistant_masks"}) {
    if (row.find(other) == nullptr) continue;
    if (!name.empty()) {
      fail<FormatError>("a row must have '{}' or '{}', found both", row.file_field(name),
                        row.file_field(other));
    }
    name = other;
  }
  if (name.empty()) return supervised;
  const bool labelled = name == "labels";
  const auto values = integers(row, name, labelled ? kIgnore : 0, tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool valid = labelled ? values[i] == kIgnore || values[i] == tokens[i] : values[i] <= 1;
    if (!valid) {
      fail<FormatError>("'{}'[{}] must be {}, found {}", row.file_field(name), i,
                        labelled ? fmt::format("-100 or input_ids[{}] = {}", i, tokens[i])
                                 : std::string("0 or 1"),
                        values[i]);
    }
    supervised[i] = labelled ? values[i] != kIgnore : values[i] != 0;
  }
  return supervised;
}

// [begin, end) of the tokens that are not padding.
std::pair<size_t, size_t> unpadded(const Row& row, size_t length) {
  if (row.find("attention_mask") == nullptr) return {0, length};
  const auto mask = integers(row, "attention_mask", 0, length);
  size_t begin = 0, end = length;
  while (begin < end && mask[begin] == 0) ++begin;
  while (end > begin && mask[end - 1] == 0) --end;
  for (size_t i = begin; i < end; ++i) {
    if (mask[i] == 1) continue;
    fail<FormatError>("'{}' may be 0 only at either end (padding), found {} at {}",
                      row.file_field("attention_mask"), mask[i], i);
  }
  return {begin, end};
}

// Padding at the end of the labels is -100 there.
Record labelled_source(const Row& row, const std::vector<TokenId>& tokens) {
  std::vector<TokenId> labels = integers(row, "labels", kIgnore, 0);
  while (!labels.empty() && labels.back() == kIgnore) labels.pop_back();
  if (labels.empty())
    fail<FormatError>("'{}' has no token to train; remove the row", row.file_field("labels"));
  const auto [begin, end] = unpadded(row, tokens.size());
  if (begin == end)
    fail<FormatError>("'{}' is padding alone; remove the row", row.file_field("input_ids"));
  return LabelledSource{{tokens.begin() + static_cast<ptrdiff_t>(begin),
                         tokens.begin() + static_cast<ptrdiff_t>(end)},
                        std::move(labels)};
}

}  // namespace

Record read_pretokenized(const Row& row, const ReaderOptions& options) {
  const auto tokens = integers(row, "input_ids", 0, 0);
  if (tokens.empty())
    fail<FormatError>("'{}' is empty; remove the row", row.file_field("input_ids"));
  if (options.labels_apart) return labelled_source(row, tokens);
  const auto supervised = mask_of(row, tokens);
  const auto [begin, end] = unpadded(row, tokens.size());
  const auto first = static_cast<ptrdiff_t>(begin), last = static_cast<ptrdiff_t>(end);
  return TokenRow{{tokens.begin() + first, tokens.begin() + last},
                  {supervised.begin() + first, supervised.begin() + last}};
}

}  // namespace qlora::data
