#include "data/mask_view.h"

#include "fmt/format.h"
#include "io/json_text.h"
#include "nlohmann/json.hpp"

namespace qlora::data {
namespace {

// Bytes of a control character at `at`: C0, DEL, or C1 in its two-byte UTF-8 form. 0: none.
size_t control_bytes(const std::string& text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte == '\n' || byte == '\t') return 0;
  if (byte < 0x20 || byte == 0x7f) return 1;
  if (byte != 0xc2 || at + 1 == text.size()) return 0;
  const auto next = static_cast<unsigned char>(text[at + 1]);
  return next >= 0x80 && next < 0xa0 ? 2 : 0;
}

std::string printable(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t count = control_bytes(text, i);
    if (count == 0) {
      result += text[i++];
      continue;
    }
    for (size_t k = 0; k < count; ++k) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i++]));
    }
  }
  return result;
}

}  // namespace

std::vector<MaskedSpan> masked_spans(const ExampleView& example, const Tokenizer& tokenizer) {
  std::vector<MaskedSpan> spans;
  const size_t length = example.tokens.size();
  for (size_t begin = 0; begin < length;) {
    const bool trained = example.supervised[begin] != 0;
    size_t end = begin;
    while (end < length && (example.supervised[end] != 0) == trained) ++end;
    const auto run = example.tokens.subspan(begin, end - begin);
    spans.push_back({printable(tokenizer.decode(run, false)), trained});
    begin = end;
  }
  return spans;
}

std::string encoded_text(const ExampleView& example, const Tokenizer& tokenizer) {
  return example.encoded.empty() ? "" : printable(tokenizer.decode(example.encoded, false));
}

std::string masked_text(const ExampleView& example, const Tokenizer& tokenizer, bool colour) {
  const std::string open[2] = {colour ? "\x1b[90m" : "", colour ? "\x1b[32m" : "⟦"};
  const std::string close[2] = {colour ? "\x1b[0m" : "", colour ? "\x1b[0m" : "⟧"};
  std::string text;
  if (!example.encoded.empty()) text = open[0] + encoded_text(example, tokenizer) + close[0] + "\n";
  for (const MaskedSpan& span : masked_spans(example, tokenizer))
    text += open[span.trained] + span.text + close[span.trained];
  return text;
}

std::string example_json(const ExampleView& view) {
  const Example example = view.copy();
  nlohmann::ordered_json json = {{"source", example.source},
                                 {"row", example.row},
                                 {"tokens", example.tokens},
                                 {"supervised", example.supervised},
                                 {"num_supervised", example.num_supervised()}};
  if (!example.encoded.empty()) json["encoded"] = example.encoded;
  if (example.side != Side::kNone)
    json["side"] = example.side == Side::kChosen ? "chosen" : "rejected";
  return io::json_text(json);
}

}  // namespace qlora::data
