#include "data/tokenizers/bpe_model.h"

#include <queue>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/metaspace.h"

namespace qlora::data {
namespace {

Vocabulary read_vocabulary(const io::JsonNode& node) {
  if (!node.value().is_object()) node.reject("an object of token: id");
  Vocabulary vocabulary;
  for (const auto& [token, id] : node.value().items()) {
    const io::JsonNode entry(id, node.place() + "." + token);
    vocabulary.add(token, entry.as_integer(0, kMaxVocabularySize - 1), node.place());
  }
  return vocabulary;
}

struct TokenPair {
  std::string left, right;
};

// "a b", or ["a", "b"] in newer files (whose tokens may hold blanks).
TokenPair parse_merge(const io::JsonNode& node) {
  if (node.value().is_array()) {
    const auto pair = node.elements();
    if (pair.size() != 2) node.reject("a pair of tokens");
    return {pair[0].as_string(), pair[1].as_string()};
  }
  const std::string text = node.as_string();
  const size_t blank = text.find(' ');
  if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
    node.reject("two tokens with one blank between them");
  }
  return {text.substr(0, blank), text.substr(blank + 1)};
}

// A merge that waits for its turn.
struct Candidate {
  uint32_t rank;
  uint32_t position;  // of the left symbol
  TokenId result;
  // std::priority_queue gives the largest: that is the lowest rank, then the leftmost.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

// A token that may still grow; symbols are a linked list inside a vector. Dead ones have id -1.
struct BpeModel::Symbol {
  TokenId id;
  int32_t previous, next;
};

BpeModel::BpeModel(const io::JsonNode& node)
    : TokenModel(read_vocabulary(node.at("vocab"))),
      ranks_(node.at("merges").value().size()),
      continuing_prefix_(node.string_or("continuing_subword_prefix", "")),
      end_suffix_(node.string_or("end_of_word_suffix", "")),
      fuse_unknown_(node.bool_or("fuse_unk", false)),
      byte_fallback_(node.bool_or("byte_fallback", false)),
      ignore_merges_(node.bool_or("ignore_merges", false)) {
  if (const auto dropout = node.find("dropout"); dropout && dropout->as_number() != 0) {
    dropout->reject("null or 0: ids drawn by chance are not supported");
  }
  if (const auto unknown = node.find("unk_token")) {
    unknown_ = vocabulary().find(unknown->as_string());
    if (!unknown_) unknown->reject("a token of the vocabulary");
  }
  read_merges(node.at("merges"));
  read_byte_tokens();
}

void BpeModel::read_merges(const io::JsonNode& merges) {
  if (!merges.value().is_array()) merges.reject("an array");
  bool reaches_over_words = false;
  uint32_t rank = 0;
  for (size_t i = 0; i < merges.value().size(); ++i) {
    const io::JsonNode entry(merges.value()[i], fmt::format("{}[{}]", merges.place(), i));
    if (i == 0 && entry.value().is_string() && entry.as_string().starts_with("#version")) continue;
    const TokenPair pair = parse_merge(entry);
    const auto left = vocabulary().find(pair.left);
    const auto right = vocabulary().find(pair.right);
    if (!left || !right) entry.reject("two tokens of the vocabulary");
    if (!pair.right.starts_with(continuing_prefix_)) {
      entry.reject(fmt::format("a pair whose second token starts with '{}'", continuing_prefix_));
    }
    const auto joined = vocabulary().find(pair.left + pair.right.substr(continuing_prefix_.size()));
    if (!joined) entry.reject("a pair whose joined text is a token of the vocabulary");
    ranks_.set(*left, *right, {rank++, *joined});
    reaches_over_words |= pair.right.starts_with(kMetaspace) && !pair.left.ends_with(kMetaspace);
  }
  cuts_before_words_ = !reaches_over_words && !ignore_merges_ && continuing_prefix_.empty() &&
                       end_suffix_.empty() && vocabulary().find(kMetaspace);
}

void BpeModel::read_byte_tokens() {
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[static_cast<size_t>(byte)] =
        vocabulary().find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
}

size_t BpeModel::next_cut(std::string_view piece, size_t from) const {
  if (!cuts_before_words_) return piece.size();
  const std::string_view sign(kMetaspace);
  for (size_t at = piece.find(sign, from + 1); at != std::string_view::npos;
       at = piece.find(sign, at + sign.size())) {
    if (!piece.substr(0, at).ends_with(sign)) return at;
  }
  return piece.size();
}

void BpeModel::encode(std::string_view piece, std::vector<TokenId>& ids) const {
  if (ignore_merges_) {
    if (const auto whole = vocabulary().find(piece)) {
      ids.push_back(*whole);
      return;
    }
  }
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  split_into_symbols(piece, symbols);
  merge_symbols(symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

bool BpeModel::append_byte_tokens(std::string_view character, std::vector<Symbol>& symbols) const {
  for (const char c : character) {
    if (byte_tokens_[static_cast<unsigned char>(c)] < 0) return false;
  }
  for (const char c : character) {
    symbols.push_back({byte_tokens_[static_cast<unsigned char>(c)], 0, 0});
  }
  return true;
}

void BpeModel::split_into_symbols(std::string_view piece, std::vector<Symbol>& symbols) const {
  const bool affixes = !continuing_prefix_.empty() || !end_suffix_.empty();
  bool pending_unknown = false;  // not yet appended, so that a run can be fused
  const auto flush_unknown = [&] {
    if (pending_unknown) symbols.push_back({*unknown_, 0, 0});
    pending_unknown = false;
  };
  std::string affixed;
  for (size_t index = 0; index < piece.size();) {
    const size_t length = utf8_length(piece[index]);
    std::string_view character = piece.substr(index, length);
    if (affixes) {
      affixed = index > 0 ? continuing_prefix_ : "";
      affixed += character;
      if (index + length == piece.size()) affixed += end_suffix_;
      character = affixed;
    }
    index += length;
    if (const auto id = vocabulary().find(character)) {
      flush_unknown();
      symbols.push_back({*id, 0, 0});
    } else if (byte_fallback_ && append_byte_tokens(character, symbols)) {
      continue;
    } else if (unknown_) {
      if (!fuse_unknown_) flush_unknown();
      pending_unknown = true;
    }
  }
  flush_unknown();
}

void BpeModel::merge_symbols(std::vector<Symbol>& symbols) const {
  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Candidate> queue({}, std::move(storage));
  const auto offer = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Merge* merge = ranks_.find(symbols[left].id, symbols[right].id);
    if (merge) queue.push({merge->rank, static_cast<uint32_t>(left), merge->result});
  };
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
  }
  for (int32_t i = 0; i + 1 < count; ++i) offer(i, i + 1);

  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.position];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const Merge* merge = ranks_.find(left.id, right.id);
    if (!merge || merge->result != top.result) continue;  // one of the two has grown since
    left.id = merge->result;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = static_cast<int32_t>(top.position);
    right.id = -1;
    offer(left.previous, static_cast<int32_t>(top.position));
    offer(static_cast<int32_t>(top.position), left.next);
  }
}

}  // namespace qlora::data
