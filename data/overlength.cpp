#include "data/overlength.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace qlora::data {
namespace {

Example slice(const Example& example, int64_t begin, int64_t end) {
  Example part;
  part.row = example.row;
  part.source = example.source;
  part.side = example.side;
  part.tokens.assign(example.tokens.begin() + begin, example.tokens.begin() + end);
  part.supervised.assign(example.supervised.begin() + begin, example.supervised.begin() + end);
  part.supervised.front() = 0;  // nothing in this part predicts its first token
  return part;
}

Example truncated_left(const Example& example, const LengthPolicy& policy) {
  Example part = slice(example, example.length() - policy.sequence_length, example.length());
  if (policy.bos >= 0 && example.tokens.front() == policy.bos) {
    part.tokens.front() = policy.bos;
  }
  return part;
}

// "more than data.sequence_length 1024; raise it, or choose"
std::string beyond(const LengthPolicy& policy) {
  return policy.length_is_models
             ? fmt::format("more than the {} positions of the model; choose",
                           policy.sequence_length)
             : fmt::format("more than data.sequence_length {}; raise it, or choose",
                           policy.sequence_length);
}

void keep(Example example, DatasetReport& report, std::vector<Example>& kept) {
  if (example.num_supervised() == 0) {
    ++report.dropped_unsupervised;
    return;
  }
  ++report.examples;
  kept.push_back(std::move(example));
}

// Of a source and its answer the source is what can be cut, in front of its last token.
void keep_pair_within_length(Example example, const LengthPolicy& policy, DatasetReport& report,
                             std::vector<Example>& kept) {
  const int64_t excess = example.length() - policy.sequence_length;
  const auto source = static_cast<int64_t>(example.encoded.size());
  const bool cuts = policy.on_overlength == OnOverlength::kTruncateRight ||
                    policy.on_overlength == OnOverlength::kTruncateLeft;
  if (policy.on_overlength == OnOverlength::kDrop) {
    ++report.dropped_overlength;
    return;
  }
  if (!cuts || source - excess < 2)
    fail<FormatError>(
        "the row has {} tokens, {} of its source and {} of its answer, {} with data.on_overlength: "
        "drop, truncate_left or truncate_right, which shorten the source",
        example.length(), source, example.length() - source, beyond(policy));
  ++report.truncated;
  const bool left = policy.on_overlength == OnOverlength::kTruncateLeft;
  const auto begin = left ? example.encoded.begin() : example.encoded.end() - 1 - excess;
  example.encoded.erase(begin, begin + excess);
  keep(std::move(example), report, kept);
}

// Cut to the policy's length.
Example truncated(const Example& example, const LengthPolicy& policy) {
  if (example.length() <= policy.sequence_length) return example;
  return policy.on_overlength == OnOverlength::kTruncateLeft
             ? truncated_left(example, policy)
             : slice(example, 0, policy.sequence_length);
}

void keep_answers_within_length(Example chosen, Example rejected, const LengthPolicy& policy,
                                DatasetReport& report, std::vector<Example>& kept) {
  const int64_t longest = std::max(chosen.length(), rejected.length());
  if (longest > policy.sequence_length) {
    switch (policy.on_overlength) {
      case OnOverlength::kError:
      case OnOverlength::kSplit:
        fail<FormatError>(
            "the prompt has {} tokens with the chosen answer and {} with the rejected one, {} with "
            "data.on_overlength: drop, truncate_left or truncate_right",
            chosen.length(), rejected.length(), beyond(policy));
      case OnOverlength::kDrop:
        ++report.dropped_overlength;
        return;
      case OnOverlength::kTruncateLeft:
      case OnOverlength::kTruncateRight:
        ++report.truncated;
        chosen = truncated(chosen, policy);
        rejected = truncated(rejected, policy);
    }
  }
  if (chosen.num_supervised() == 0 || rejected.num_supervised() == 0) {
    ++report.dropped_unsupervised;
    return;
  }
  ++report.examples;
  kept.push_back(std::move(chosen));
  kept.push_back(std::move(rejected));
}

}  // namespace

void keep_row_within_length(std::vector<Example> examples, const LengthPolicy& policy,
                            DatasetReport& report, std::vector<Example>& kept) {
  require_sequence_length(policy.sequence_length);
  if (!examples.empty() && examples.front().side != Side::kNone)
    return keep_answers_within_length(std::move(examples[0]), std::move(examples[1]), policy,
                                      report, kept);
  for (Example& example : examples) keep_within_length(std::move(example), policy, report, kept);
}

void keep_within_length(Example example, const LengthPolicy& policy, DatasetReport& report,
                        std::vector<Example>& kept) {
  require_sequence_length(policy.sequence_length);
  const int64_t length = example.length(), most = policy.sequence_length;
  if (length <= most) return keep(std::move(example), report, kept);
  if (!example.encoded.empty())
    return keep_pair_within_length(std::move(example), policy, report, kept);
  switch (policy.on_overlength) {
    case OnOverlength::kError:
      fail<FormatError>(
          "the row has {} tokens, {} with data.on_overlength: drop, truncate_left, truncate_right "
          "or split",
          length, beyond(policy));
    case OnOverlength::kDrop:
      ++report.dropped_overlength;
      return;
    case OnOverlength::kTruncateRight:
      ++report.truncated;
      return keep(slice(example, 0, most), report, kept);
    case OnOverlength::kTruncateLeft:
      ++report.truncated;
      return keep(truncated_left(example, policy), report, kept);
    case OnOverlength::kSplit:
      ++report.split;
      for (int64_t begin = 0; begin + 1 < length; begin += most - 1) {
        ++report.pieces;
        keep(slice(example, begin, std::min(length, begin + most)), report, kept);
      }
      return;
  }
}

}  // namespace qlora::data
