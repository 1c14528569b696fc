#include "data/tokenizers/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/unicode.h"

namespace qlora::data {
namespace {

bool touches_word_on_left(std::string_view text, size_t begin) {
  if (begin == 0) return false;
  size_t index = previous_code_point(text, begin);
  return is_word_character(next_code_point(text, index));
}

bool touches_word_on_right(std::string_view text, size_t end) {
  return end < text.size() && is_word_character(next_code_point(text, end));
}

size_t skip_white_space_leftwards(std::string_view text, size_t begin, size_t low) {
  while (begin > low) {
    const size_t previous = previous_code_point(text, begin);
    size_t index = previous;
    if (!is_white_space(next_code_point(text, index))) break;
    begin = previous;
  }
  return begin;
}

size_t skip_white_space_rightwards(std::string_view text, size_t end) {
  while (end < text.size()) {
    size_t next = end;
    if (!is_white_space(next_code_point(text, next))) break;
    end = next;
  }
  return end;
}

}  // namespace

AddedToken parse_added_token(const io::JsonNode& node) {
  AddedToken token;
  token.content = node.at("content").as_string();
  token.single_word = node.bool_or("single_word", false);
  token.lstrip = node.bool_or("lstrip", false);
  token.rstrip = node.bool_or("rstrip", false);
  token.special = node.bool_or("special", false);
  token.normalized = node.bool_or("normalized", !token.special);
  return token;
}

nlohmann::json to_json(const AddedToken& token) {
  return {{"content", token.content},       {"single_word", token.single_word},
          {"lstrip", token.lstrip},         {"rstrip", token.rstrip},
          {"normalized", token.normalized}, {"special", token.special}};
}

void TokenTrie::add(std::string_view content, size_t value) {
  uint32_t node = 0;
  for (const char c : content) {
    const auto fresh = static_cast<uint32_t>(nodes_.size());
    const auto [entry, inserted] = nodes_[node].next.emplace(c, fresh);
    node = entry->second;
    if (inserted) nodes_.emplace_back();
  }
  nodes_[node].value = value;
  starts_[static_cast<unsigned char>(content[0])] = true;
}

bool TokenTrie::find(std::string_view text, size_t from, Hit& hit) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    bool found = false;
    uint32_t node = 0;
    for (size_t index = begin; index < text.size(); ++index) {
      const auto next = nodes_[node].next.find(text[index]);
      if (next == nodes_[node].next.end()) break;
      node = next->second;
      if (nodes_[node].value == SIZE_MAX) continue;
      hit = {begin, index + 1, nodes_[node].value};
      found = true;
    }
    if (found) return true;
  }
  return false;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer,
                         const std::string& place)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.content.empty()) fail<FormatError>("{}: an added token must not be empty", place);
    if (!by_content_.emplace(token.content, i).second || !by_id_.emplace(token.id, i).second) {
      fail<FormatError>(
          "{}: an added token must be listed once, but '{}' (id {}) or its id comes "
          "twice",
          place, token.content, token.id);
    }
    const bool rewritten = token.normalized && normalizer;
    spellings_.push_back(rewritten ? normalizer->apply(token.content) : token.content);
    if (spellings_.back().empty()) continue;  // normalized away: it can never be found
    (token.normalized ? normalized_ : raw_).add(spellings_.back(), i);
    if (!token.normalized) longest_raw_ = std::max(longest_raw_, spellings_.back().size());
  }
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto entry = by_content_.find(content);
  return entry == by_content_.end() ? nullptr : &tokens_[entry->second];
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto entry = by_id_.find(id);
  return entry == by_id_.end() ? nullptr : &tokens_[entry->second];
}

const std::string& AddedTokens::spelling(const AddedToken& token) const {
  return spellings_[static_cast<size_t>(&token - tokens_.data())];
}

std::vector<Segment> AddedTokens::split(std::string_view text, const TokenTrie& trie,
                                        size_t from) const {
  std::vector<Segment> segments;
  size_t between = from;  // end of the last token with the white space it swallowed
  for (TokenTrie::Hit hit; trie.find(text, from, hit);) {
    from = hit.end;
    const AddedToken& token = tokens_[hit.value];
    if (token.single_word &&
        (touches_word_on_left(text, hit.begin) || touches_word_on_right(text, hit.end))) {
      continue;
    }
    // In white space that the token before it swallowed, one that strips on its left has nothing
    // left and is dropped; another one stands there all the same.
    if (token.lstrip)
      hit.begin = std::max(skip_white_space_leftwards(text, hit.begin, between), between);
    if (token.rstrip) hit.end = skip_white_space_rightwards(text, hit.end);
    if (hit.begin >= hit.end) continue;
    if (between < hit.begin) segments.push_back({{between, hit.begin}, -1});
    segments.push_back({{hit.begin, hit.end}, token.id});
    between = hit.end;
  }
  if (between < text.size()) segments.push_back({{between, text.size()}, -1});
  return segments;
}

}  // namespace qlora::data
