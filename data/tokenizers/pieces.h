// A stretch of text cut into pieces, and the ways to cut further. Pre-tokenizers hand it on to one
// another; the model then encodes each piece on its own.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::data {

struct Span {
  size_t begin, end;
  friend bool operator==(const Span&, const Span&) = default;
};

struct Pieces {
  std::string text;
  std::vector<Span> spans;  // in order, not empty, not overlapping; what they leave out is dropped
  bool starts_input = false;  // text begins where the whole input begins

  std::string_view piece(const Span& span) const {
    return std::string_view(text).substr(span.begin, span.end - span.begin);
  }
};

// What becomes of the delimiters that a splitter finds.
enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,  // a run of neighbouring delimiters is one piece
};

// A part of a piece: a delimiter, or what lies between two.
struct Part {
  Span span;
  bool is_delimiter;
};

// Appends the parts of `piece` in order, offsets counted from the piece's beginning.
using FindParts = std::function<void(std::string_view piece, std::vector<Part>& parts)>;

// Cuts every piece at its delimiters.
void split_pieces(Pieces& pieces, const FindParts& find_parts, SplitBehavior behavior);

// FindParts for delimiters of one character each.
FindParts delimiter_characters(bool (*is_delimiter)(char32_t code));

}  // namespace qlora::data
