#include "data/tokenizers/token_decoder.h"

#include <optional>

#include "base/utf8.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/metaspace.h"
#include "data/tokenizers/text_pattern.h"

namespace qlora::data {
namespace {

std::string joined(const std::vector<std::string>& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

// Letters back to bytes; a token with other characters (an added one) stands for itself.
class ByteLevelDecoder final : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) bytes += bytes_of_letters(token).value_or(token);
    tokens = {replace_invalid_utf8(bytes)};
  }
};

// Runs of <0xHH> become the text their bytes make, or one U+FFFD a byte if they make none.
class ByteFallbackDecoder final : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> result;
    std::string bytes;
    const auto flush = [&] {
      if (!bytes.empty() && !find_invalid_utf8(bytes)) {
        result.push_back(bytes);
      } else {
        result.insert(result.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      const int byte = byte_of_fallback_token(token);
      if (byte >= 0) {
        bytes.push_back(static_cast<char>(byte));
      } else {
        flush();
        result.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(result);
  }
};

class FuseDecoder final : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override { tokens = {joined(tokens)}; }
};

// Takes up to `start` and `stop` times the character off the ends of every token.
class StripDecoder final : public TokenDecoder {
 public:
  explicit StripDecoder(const io::JsonNode& node)
      : content_(node.at("content").as_string()),
        start_(node.at("start").as_integer(0, INT32_MAX)),
        stop_(node.at("stop").as_integer(0, INT32_MAX)) {
    if (content_.empty() || utf8_length(content_[0]) != content_.size()) {
      node.at("content").reject("one character");
    }
  }

  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      for (int64_t i = 0; i < start_ && rest.starts_with(content_); ++i) {
        rest.remove_prefix(content_.size());
      }
      for (int64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) {
        rest.remove_suffix(content_.size());
      }
      token = std::string(rest);
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

class ReplaceDecoder final : public TokenDecoder {
 public:
  explicit ReplaceDecoder(const io::JsonNode& node)
      : pattern_(node.at("pattern")), content_(node.at("content").as_string()) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) token = pattern_.replace_all(token, content_);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

// Signs back to blanks; those of the first token were put there, unless the scheme is "never".
class MetaspaceDecoder final : public TokenDecoder {
 public:
  explicit MetaspaceDecoder(const io::JsonNode& node) : options_(parse_metaspace(node)) {}
  void apply(std::vector<std::string>& tokens) const override {
    bool first = options_.prepend != PrependScheme::kNever;
    for (std::string& token : tokens) {
      std::string text;
      const std::string& sign = options_.replacement;
      size_t from = 0;
      for (size_t at; (at = token.find(sign, from)) != std::string::npos; from = at + sign.size()) {
        text.append(token, from, at - from);
        if (!first) text += ' ';
      }
      token = text.append(token, from);
      first = false;
    }
  }

 private:
  MetaspaceOptions options_;
};

// Takes the end-of-word suffix for a blank, and drops it at the end of the text.
class SuffixDecoder final : public TokenDecoder {
 public:
  explicit SuffixDecoder(const io::JsonNode& node) : suffix_(node.string_or("suffix", "</w>")) {
    if (suffix_.empty()) node.at("suffix").reject("a string that is not empty");
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      const char* blank = i + 1 == tokens.size() ? "" : " ";
      for (size_t at = 0; (at = token.find(suffix_, at)) != std::string::npos;) {
        token.replace(at, suffix_.size(), blank);
      }
    }
  }

 private:
  std::string suffix_;
};

class DecoderSequence final : public TokenDecoder {
 public:
  explicit DecoderSequence(const io::JsonNode& node) {
    for (const io::JsonNode& step : node.at("decoders").elements()) {
      steps_.push_back(make_token_decoder(step));
    }
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (const auto& step : steps_) step->apply(tokens);
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> steps_;
};

}  // namespace

int byte_of_fallback_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

std::unique_ptr<TokenDecoder> make_token_decoder(const io::JsonNode& node) {
  const std::string type = node.at("type").as_string();
  if (type == "Sequence") return std::make_unique<DecoderSequence>(node);
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackDecoder>();
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Strip") return std::make_unique<StripDecoder>(node);
  if (type == "Replace") return std::make_unique<ReplaceDecoder>(node);
  if (type == "Metaspace") return std::make_unique<MetaspaceDecoder>(node);
  if (type == "BPEDecoder") return std::make_unique<SuffixDecoder>(node);
  node.at("type").reject(
      "ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder or Sequence");
}

}  // namespace qlora::data
