#include "data/tokenizers/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::data {
namespace {

constexpr double kUnknownPenalty = 10.0;

Vocabulary read_vocabulary(const io::JsonNode& node) {
  Vocabulary vocabulary;
  int64_t id = 0;
  for (const io::JsonNode& entry : node.elements()) {
    const auto pair = entry.elements();
    if (pair.size() != 2) entry.reject("a pair of token and score");
    vocabulary.add(pair[0].as_string(), id++, node.place());
  }
  return vocabulary;
}

// The best way to cover the text up to some place.
struct BestPath {
  double score = -std::numeric_limits<double>::infinity();
  size_t begin = 0;  // of the last token
  TokenId id = -1;   // -1: a character that is unknown
};

}  // namespace

UnigramModel::UnigramModel(const io::JsonNode& node)
    : TokenModel(read_vocabulary(node.at("vocab"))),
      byte_fallback_(node.bool_or("byte_fallback", false)),
      ends_(1, -1) {
  if (vocabulary().num_tokens() == 0) node.at("vocab").reject("a list with at least one token");
  for (const io::JsonNode& entry : node.at("vocab").elements()) {
    scores_.push_back(entry.elements()[1].as_number());
  }
  unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  if (const auto unknown = node.find("unk_id")) {
    unknown_ = static_cast<TokenId>(unknown->as_integer(0, vocabulary().id_limit() - 1));
  }
  for (TokenId id = 0; id < vocabulary().id_limit(); ++id) {
    uint32_t position = 0;
    for (const char c : *vocabulary().token(id)) {
      const uint64_t key = uint64_t{position} << 8 | static_cast<unsigned char>(c);
      const auto [entry, inserted] = children_.emplace(key, static_cast<uint32_t>(ends_.size()));
      if (inserted) ends_.push_back(-1);
      position = entry->second;
    }
    ends_[position] = id;
  }
  ends_[0] = -1;  // an empty token covers nothing
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[static_cast<size_t>(byte)] =
        vocabulary().find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
}

uint32_t UnigramModel::child(uint32_t node, char c) const {
  const auto entry = children_.find(uint64_t{node} << 8 | static_cast<unsigned char>(c));
  return entry == children_.end() ? 0 : entry->second;
}

void UnigramModel::encode(std::string_view piece, std::vector<TokenId>& ids) const {
  std::vector<BestPath> best(piece.size() + 1);
  best[0].score = 0;
  const auto offer = [&](size_t begin, size_t end, double score, TokenId id) {
    if (best[begin].score + score > best[end].score) {
      best[end] = {best[begin].score + score, begin, id};
    }
  };
  for (size_t begin = 0; begin < piece.size();) {
    const size_t next = begin + utf8_length(piece[begin]);
    bool covered = false;  // by a token of this one character
    uint32_t node = 0;
    for (size_t end = begin; end < piece.size();) {
      node = child(node, piece[end++]);
      if (node == 0) break;
      if (ends_[node] < 0) continue;
      offer(begin, end, scores_[static_cast<size_t>(ends_[node])], ends_[node]);
      covered |= end == next;
    }
    if (!covered) offer(begin, next, unknown_score_, -1);
    begin = next;
  }

  std::vector<std::pair<size_t, TokenId>> path;  // begin and id, from the end
  for (size_t end = piece.size(); end > 0; end = best[end].begin) {
    const bool is_unknown = best[end].id < 0 || best[end].id == unknown_;
    const bool fuses = is_unknown && !path.empty() && path.back().second < 0;
    if (fuses) path.pop_back();
    path.emplace_back(best[end].begin, is_unknown ? -1 : best[end].id);
  }
  for (size_t i = path.size(); i-- > 0;) {
    const size_t end = i > 0 ? path[i - 1].first : piece.size();
    if (path[i].second >= 0) {
      ids.push_back(path[i].second);
    } else {
      append_unknown(piece.substr(path[i].first, end - path[i].first), ids);
    }
  }
}

void UnigramModel::append_unknown(std::string_view run, std::vector<TokenId>& ids) const {
  const auto token_of = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  const bool bytes_exist =
      std::all_of(run.begin(), run.end(), [&](char c) { return token_of(c) >= 0; });
  if (byte_fallback_ && bytes_exist) {
    for (const char c : run) ids.push_back(token_of(c));
    return;
  }
  if (!unknown_)
    fail<FormatError>("the unigram vocabulary has no unknown token, but '{}' needs one", run);
  ids.push_back(*unknown_);
}

}  // namespace qlora::data
