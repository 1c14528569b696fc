// Tokens that stand beside the model's vocabulary: they are found in the text before anything else
// and become one id, whatever surrounds them ("<|im_end|>").
//
// Two passes: tokens with normalized=false are looked for in the raw text, the others (normalized
// themselves) in the normalized text between them. Each pass takes, from left to right, the longest
// token that starts at a place; one that strips on its left and lies in white space that the token
// before it swallowed is dropped. (Hugging Face tokenizers' added vocabulary.)
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pieces.h"
#include "io/json.h"

namespace qlora::data {

struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // and after it
  bool normalized = false;   // found in the normalized text
  bool special = false;      // decode() can skip it
};

// Reads {content, single_word, lstrip, rstrip, normalized, special}; the id is the caller's.
AddedToken parse_added_token(const io::JsonNode& node);
nlohmann::json to_json(const AddedToken& token);

// Finds the longest of a set of strings at a place of a text.
class TokenTrie {
 public:
  void add(std::string_view content, size_t value);
  bool empty() const { return nodes_.size() == 1; }

  struct Hit {
    size_t begin, end, value;
  };
  // The leftmost, then longest hit at or behind `from`.
  bool find(std::string_view text, size_t from, Hit& hit) const;

 private:
  struct Node {
    std::map<char, uint32_t> next;
    size_t value = SIZE_MAX;  // SIZE_MAX: no string ends here
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  bool starts_[256] = {};
};

// A part of a text: an added token, or (id < 0) what lies between two.
struct Segment {
  Span span;
  TokenId id;
};

class AddedTokens {
 public:
  // Normalizes the contents of the tokens that want it; null: as they are. Contents must not be
  // empty and must be unique, ids must be set: FormatError that names `place`.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer,
              const std::string& place);

  // From `from` on, which must be 0 or stand behind a token.
  std::vector<Segment> split_raw(std::string_view text, size_t from = 0) const {
    return split(text, raw_, from);
  }
  std::vector<Segment> split_normalized(std::string_view text) const {
    return split(text, normalized_, 0);
  }

  // How far behind the end of a raw token a text must go on unchanged for the split up to there to
  // stay as it is.
  size_t raw_lookahead() const { return longest_raw_ + 4; }  // a token, or one character

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(TokenId id) const;
  // What stands for a token in a decoder: its content as it was looked for.
  const std::string& spelling(const AddedToken& token) const;

 private:
  std::vector<Segment> split(std::string_view text, const TokenTrie& trie, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::string> spellings_;  // one a token
  std::map<std::string, size_t, std::less<>> by_content_;
  std::map<TokenId, size_t> by_id_;
  TokenTrie raw_, normalized_;
  size_t longest_raw_ = 0;  // bytes
};

}  // namespace qlora::data
