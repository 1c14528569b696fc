#include "data/tokenizers/pre_tokenizer.h"

#include <map>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/metaspace.h"
#include "data/tokenizers/regex.h"
#include "data/tokenizers/text_pattern.h"
#include "data/tokenizers/unicode.h"

namespace qlora::data {

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

SplitBehavior as_behavior(const io::JsonNode& node) {
  static const std::map<std::string, SplitBehavior> names = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  };
  const auto name = names.find(node.as_string());
  if (name == names.end()) {
    node.reject("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
  }
  return name->second;
}

// Cuts at characters of a class.
class CharacterSplit final : public PreTokenizer {
 public:
  CharacterSplit(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : find_parts_(delimiter_characters(is_delimiter)), behavior_(behavior) {}

  void apply(Pieces& pieces) const override { split_pieces(pieces, find_parts_, behavior_); }

 private:
  FindParts find_parts_;
  SplitBehavior behavior_;
};

// Cuts at the matches of a pattern, or (invert) at what lies between them.
class PatternSplit final : public PreTokenizer {
 public:
  PatternSplit(TextPattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    const auto find = [this](std::string_view piece, std::vector<Part>& parts) {
      pattern_.find_parts(piece, parts);
      if (!invert_) return;
      for (Part& part : parts) part.is_delimiter = !part.is_delimiter;
    };
    split_pieces(pieces, find, behavior_);
  }

 private:
  TextPattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Spells every byte with its letter, after GPT-2's own split unless the file turns that off.
class ByteLevel final : public PreTokenizer {
 public:
  explicit ByteLevel(const io::JsonNode& node)
      : add_prefix_space_(node.bool_or("add_prefix_space", true)) {
    if (node.bool_or("use_regex", true)) {
      split_ = std::make_unique<PatternSplit>(TextPattern(Regex(kGpt2Pattern)),
                                              SplitBehavior::kIsolated, false);
    }
  }

  void apply(Pieces& pieces) const override {
    if (add_prefix_space_) prefix_spaces(pieces);
    if (split_) split_->apply(pieces);
    std::string letters;
    letters.reserve(pieces.text.size() * 5 / 4);
    for (Span& span : pieces.spans) {
      const size_t begin = letters.size();
      append_byte_letters(pieces.piece(span), letters);
      span = {begin, letters.size()};
    }
    pieces.text = std::move(letters);
  }

 private:
  static void prefix_spaces(Pieces& pieces) {
    std::string text;
    text.reserve(pieces.text.size() + pieces.spans.size());
    for (Span& span : pieces.spans) {
      const std::string_view piece = pieces.piece(span);
      const size_t begin = text.size();
      if (!piece.starts_with(' ')) text += ' ';
      text += piece;
      span = {begin, text.size()};
    }
    pieces.text = std::move(text);
  }

  bool add_prefix_space_;
  std::unique_ptr<PatternSplit> split_;
};

// Blanks become a visible sign, which may also be put in front; words then start with it.
class MetaspaceSplit final : public PreTokenizer {
 public:
  explicit MetaspaceSplit(const io::JsonNode& node) : options_(parse_metaspace(node)) {}

  void apply(Pieces& pieces) const override {
    std::string text;
    text.reserve(pieces.text.size() * 3 / 2);
    for (Span& span : pieces.spans) {
      const size_t begin = text.size();
      if (prepends(pieces, span)) text += options_.replacement;
      for (const char c : pieces.piece(span)) {
        if (c == ' ')
          text += options_.replacement;
        else
          text += c;
      }
      span = {begin, text.size()};
    }
    pieces.text = std::move(text);
    if (options_.split) split_pieces(pieces, find_replacements(), SplitBehavior::kMergedWithNext);
  }

 private:
  bool prepends(const Pieces& pieces, const Span& span) const {
    const std::string_view piece = pieces.piece(span);
    if (piece.starts_with(' ') || piece.starts_with(options_.replacement)) return false;
    if (options_.prepend == PrependScheme::kFirst) return pieces.starts_input && span.begin == 0;
    return options_.prepend == PrependScheme::kAlways;
  }

  FindParts find_replacements() const {
    return [&sign = options_.replacement](std::string_view piece, std::vector<Part>& parts) {
      size_t between = 0;
      for (size_t at = piece.find(sign); at != std::string_view::npos;
           at = piece.find(sign, between)) {
        if (between < at) parts.push_back({{between, at}, false});
        between = at + sign.size();
        parts.push_back({{at, between}, true});
      }
      if (between < piece.size()) parts.push_back({{between, piece.size()}, false});
    };
  }

  MetaspaceOptions options_;
};

class PreTokenizerSequence final : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(const io::JsonNode& node) {
    for (const io::JsonNode& step : node.at("pretokenizers").elements()) {
      steps_.push_back(make_pre_tokenizer(step));
    }
  }
  void apply(Pieces& pieces) const override {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const io::JsonNode& node) {
  const std::string type = node.at("type").as_string();
  if (type == "Sequence") return std::make_unique<PreTokenizerSequence>(node);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(node);
  if (type == "Metaspace") return std::make_unique<MetaspaceSplit>(node);
  if (type == "Split") {
    return std::make_unique<PatternSplit>(TextPattern(node.at("pattern")),
                                          as_behavior(node.at("behavior")),
                                          node.bool_or("invert", false));
  }
  if (type == "Digits") {
    const bool single = node.bool_or("individual_digits", false);
    return std::make_unique<CharacterSplit>(
        is_number, single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (type == "Punctuation") {
    const auto behavior = node.find("behavior");
    return std::make_unique<CharacterSplit>(
        is_punctuation, behavior ? as_behavior(*behavior) : SplitBehavior::kIsolated);
  }
  if (type == "WhitespaceSplit") {
    return std::make_unique<CharacterSplit>(is_white_space, SplitBehavior::kRemoved);
  }
  if (type == "Whitespace") {
    // Words, or runs of other characters. Rust's \w, which is not Oniguruma's: no numbers of
    // category No, but the joiners U+200C and U+200D.
    return std::make_unique<PatternSplit>(
        TextPattern(Regex(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|)"
                          R"([^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}\s]+)")),
        SplitBehavior::kRemoved, true);
  }
  node.at("type").reject(
      "ByteLevel, Split, Digits, Whitespace, WhitespaceSplit, Punctuation, Metaspace or Sequence");
}

}  // namespace qlora::data
