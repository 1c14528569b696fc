#include "data/tokenizers/normalizer.h"

#include <map>

#include "base/base64.h"
#include "base/utf8.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/charsmap.h"
#include "data/tokenizers/text_pattern.h"
#include "data/tokenizers/unicode.h"

namespace qlora::data {
namespace {

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  std::string apply(std::string_view text) const override { return to_normal_form(text, form_); }

 private:
  NormalForm form_;
};

class Lowercase final : public Normalizer {
 public:
  std::string apply(std::string_view text) const override { return to_lower_case(text); }
};

class Strip final : public Normalizer {
 public:
  explicit Strip(const io::JsonNode& node)
      : left_(node.at("strip_left").as_bool()), right_(node.at("strip_right").as_bool()) {}

  std::string apply(std::string_view text) const override {
    size_t begin = 0, end = text.size();
    while (left_ && begin < end) {
      size_t next = begin;
      if (!is_white_space(next_code_point(text, next))) break;
      begin = next;
    }
    while (right_ && begin < end) {
      const size_t last = previous_code_point(text, end);
      size_t behind = last;
      if (!is_white_space(next_code_point(text, behind))) break;
      end = last;
    }
    return std::string(text.substr(begin, end - begin));
  }

 private:
  bool left_, right_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(const io::JsonNode& node) : prefix_(node.at("prepend").as_string()) {}
  std::string apply(std::string_view text) const override {
    return text.empty() ? std::string() : prefix_ + std::string(text);
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  explicit Replace(const io::JsonNode& node)
      : pattern_(node.at("pattern")), content_(node.at("content").as_string()) {}
  std::string apply(std::string_view text) const override {
    return pattern_.replace_all(text, content_);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class ByteLetters final : public Normalizer {
 public:
  std::string apply(std::string_view text) const override {
    std::string letters;
    append_byte_letters(text, letters);
    return letters;
  }
};

class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(const io::JsonNode& node)
      : map_(bytes_of(node.at("precompiled_charsmap")), node.at("precompiled_charsmap").place()) {}
  std::string apply(std::string_view text) const override { return map_.apply(text); }

 private:
  static std::string bytes_of(const io::JsonNode& node) {
    const auto bytes = from_base64(node.as_string());
    if (!bytes) node.reject("base64");
    return *bytes;
  }

  CharsMap map_;
};

class NormalizerSequence final : public Normalizer {
 public:
  explicit NormalizerSequence(const io::JsonNode& node) {
    for (const io::JsonNode& step : node.at("normalizers").elements()) {
      steps_.push_back(make_normalizer(step));
    }
  }
  std::string apply(std::string_view text) const override {
    std::string result(text);
    for (const auto& step : steps_) result = step->apply(result);
    return result;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const io::JsonNode& node) {
  static const std::map<std::string, NormalForm> forms = {{"NFC", NormalForm::kNfc},
                                                          {"NFD", NormalForm::kNfd},
                                                          {"NFKC", NormalForm::kNfkc},
                                                          {"NFKD", NormalForm::kNfkd}};
  const std::string type = node.at("type").as_string();
  if (const auto form = forms.find(type); form != forms.end()) {
    return std::make_unique<UnicodeForm>(form->second);
  }
  if (type == "Sequence") return std::make_unique<NormalizerSequence>(node);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Strip") return std::make_unique<Strip>(node);
  if (type == "Prepend") return std::make_unique<Prepend>(node);
  if (type == "Replace") return std::make_unique<Replace>(node);
  if (type == "ByteLevel") return std::make_unique<ByteLetters>();
  if (type == "Precompiled") return std::make_unique<Precompiled>(node);
  node.at("type").reject(
      "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, ByteLevel, Precompiled or "
      "Sequence");
}

}  // namespace qlora::data
