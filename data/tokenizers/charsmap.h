// The normalization that a sentencepiece model brings along (precompiled_charsmap of its
// NormalizerSpec; T5's is NFKC with more): sequences of characters, and the text that stands for
// each. A place in a text is replaced by the longest sequence that begins there; llama.cpp does the
// same. Hugging Face's tokenizers look up whole graphemes first, which differs where a sequence
// ends within one.
//
// The bytes: the size of a trie in bytes (u32), the trie, and the replacements, each ended by a
// null character. The trie is a double array of u32 units (Yata's darts-clone): from the unit at
// `i` a byte `b` leads to the unit at i ^ offset ^ b, whose label must be `b`; where a sequence
// ends, the unit at i ^ offset says where its replacement begins.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::data {

class CharsMap {
 public:
  // FormatError that names `place` if the bytes are no such table.
  CharsMap(std::string_view bytes, std::string place);

  // Of valid UTF-8, as is what comes back. FormatError if a sequence leads out of the table.
  std::string apply(std::string_view text) const;

 private:
  struct Match {
    size_t length = 0;  // of the sequence in bytes; 0: there is none
    uint32_t begin = 0;
  };
  Match longest_match(std::string_view text) const;
  uint32_t unit(uint32_t index) const;
  std::string_view replacement(uint32_t begin) const;
  [[noreturn]] void reject() const;

  std::string place_;
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace qlora::data
