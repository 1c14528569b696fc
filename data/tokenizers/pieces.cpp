#include "data/tokenizers/pieces.h"

#include <algorithm>

#include "base/utf8.h"

namespace qlora::data {
namespace {

// Joins each part to its neighbour on the left when `joins` says so.
template <typename Joins>
void join_leftwards(const std::vector<Part>& parts, std::vector<Span>& spans, Joins joins) {
  bool previous = false;
  for (const Part& part : parts) {
    if (!spans.empty() && joins(part.is_delimiter, previous)) {
      spans.back().end = part.span.end;
    } else {
      spans.push_back(part.span);
    }
    previous = part.is_delimiter;
  }
}

// The first delimiter of a run goes to what stands before it; further ones stay alone.
void merge_with_previous(const std::vector<Part>& parts, std::vector<Span>& spans) {
  join_leftwards(parts, spans,
                 [](bool delimiter, bool previous) { return delimiter && !previous; });
}

// The mirror image: the last delimiter of a run goes to what follows it.
void merge_with_next(const std::vector<Part>& parts, std::vector<Span>& spans) {
  bool next = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (!spans.empty() && part->is_delimiter && !next) {
      spans.back().begin = part->span.begin;
    } else {
      spans.push_back(part->span);
    }
    next = part->is_delimiter;
  }
  std::reverse(spans.begin(), spans.end());
}

void arrange(const std::vector<Part>& parts, SplitBehavior behavior, std::vector<Span>& spans) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.is_delimiter) spans.push_back(part.span);
      }
      return;
    case SplitBehavior::kIsolated:
      for (const Part& part : parts) spans.push_back(part.span);
      return;
    case SplitBehavior::kMergedWithPrevious:
      return merge_with_previous(parts, spans);
    case SplitBehavior::kMergedWithNext:
      return merge_with_next(parts, spans);
    case SplitBehavior::kContiguous:
      return join_leftwards(parts, spans,
                            [](bool delimiter, bool previous) { return delimiter == previous; });
  }
}

}  // namespace

void split_pieces(Pieces& pieces, const FindParts& find_parts, SplitBehavior behavior) {
  std::vector<Span> result;
  result.reserve(pieces.spans.size());
  std::vector<Part> parts;
  std::vector<Span> spans;
  for (const Span& outer : pieces.spans) {
    parts.clear();
    spans.clear();
    find_parts(pieces.piece(outer), parts);
    arrange(parts, behavior, spans);
    for (const Span& inner : spans) {
      if (inner.begin < inner.end) {
        result.push_back({outer.begin + inner.begin, outer.begin + inner.end});
      }
    }
  }
  pieces.spans = std::move(result);
}

FindParts delimiter_characters(bool (*is_delimiter)(char32_t code)) {
  return [is_delimiter](std::string_view piece, std::vector<Part>& parts) {
    size_t between = 0;
    for (size_t index = 0; index < piece.size();) {
      const size_t begin = index;
      if (!is_delimiter(next_code_point(piece, index))) continue;
      if (between < begin) parts.push_back({{between, begin}, false});
      parts.push_back({{begin, index}, true});
      between = index;
    }
    if (between < piece.size()) parts.push_back({{between, piece.size()}, false});
  };
}

}  // namespace qlora::data
