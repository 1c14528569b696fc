#include "data/tokenizers/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/pattern_alphabet.h"
#include "data/tokenizers/translated_pattern.h"

namespace qlora::data {
namespace {

// Runs of a hundred thousand blanks must not exhaust the JIT's stack; memory is taken as needed.
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMost = 64 << 20;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// What one thread needs to match, whatever the pattern: offsets of the whole match and a stack.
struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr);

  MatchState() {
    check(data && context, "Regex: PCRE2 got no memory for a match");
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack) pcre2_jit_stack_free(stack);
  }
};

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  bool jit = false;  // where the system forbids executable memory, PCRE2 interprets
  std::optional<PatternAlphabet> alphabet;  // nothing: the text itself is searched

  ~Compiled() { pcre2_code_free(code); }
};

namespace {

// The pattern for symbols; nothing where characters must be themselves.
std::optional<PatternAlphabet> alphabet_of(const ParsedPattern& parsed) {
  if (parsed.compares_text) return std::nullopt;
  return PatternAlphabet::of(parsed.sets);
}

TranslatedPattern translate(const ParsedPattern& parsed,
                            const std::optional<PatternAlphabet>& alphabet) {
  if (!alphabet)
    return parsed.translate([](const CodeSet& set) { return class_text(set, CodeSet::kLast); });
  return parsed.translate([&](const CodeSet& set) {
    return class_text(alphabet->symbols_of(set), PatternAlphabet::kLastSymbol);
  });
}

}  // namespace

Regex::Regex(const std::string& pattern, const std::string& where) {
  check_utf8(pattern, where);
  const ParsedPattern parsed = parse_oniguruma(pattern, where);
  auto compiled = std::make_unique<Compiled>();
  compiled->alphabet = alphabet_of(parsed);
  const TranslatedPattern translated = translate(parsed, compiled->alphabet);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  check(context, "Regex: PCRE2 got no memory for a pattern");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // Oniguruma's ^ and $ always stand at lines. The JIT of PCRE2 10.42 skips places where a match
  // begins if a lazy quantifier is in an atomic group: (?>a+?)b in "aab".
  const uint32_t options = PCRE2_MULTILINE | (compiled->alphabet ? 0 : PCRE2_UTF) |
                           (parsed.is_lazy ? PCRE2_NO_START_OPTIMIZE : 0);
  compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.text.data()),
                                 translated.text.size(), options, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!compiled->code) {
    const size_t place = translated.original(offset);
    fail<FormatError>("{}: there must be a regular expression, but {} at offset {} of '{}'", where,
                      error_text(error), place, quoted_pattern(pattern, place));
  }
  compiled->jit = pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE) == 0;
  compiled_ = std::move(compiled);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

Regex::Search::Search(const Regex& regex, std::string_view text)
    : compiled_(*regex.compiled_), text_(text) {
  if (compiled_.alphabet) symbols_ = compiled_.alphabet->symbols(text);
}

bool Regex::Search::find(size_t from, Match& match) {
  thread_local const MatchState state;
  move_to(from);
  const std::string_view searched = symbols_ ? std::string_view(*symbols_) : text_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(searched.data());
  const auto run = compiled_.jit ? &pcre2_jit_match : &pcre2_match;
  const int found = run(compiled_.code, subject, searched.size(), searched_, PCRE2_NO_UTF_CHECK,
                        state.data, state.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  // 0: the pattern has groups, and only the whole match fitted; that is all we ask for.
  check(found >= 0, "Regex: matching stopped at offset {} of a text of {} bytes: {}", from,
        text_.size(), found < 0 ? error_text(found) : "");
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.data);
  move_to_searched(offsets[0]);
  match.begin = byte_;
  move_to_searched(offsets[1]);
  match.end = byte_;
  return true;
}

void Regex::Search::move_to(size_t byte) {
  if (!symbols_) byte_ = searched_ = byte;
  for (; byte_ < byte; ++searched_) byte_ += utf8_length(text_[byte_]);
}

void Regex::Search::move_to_searched(size_t searched) {
  if (!symbols_) byte_ = searched_ = searched;
  for (; searched_ < searched; ++searched_) byte_ += utf8_length(text_[byte_]);
}

}  // namespace qlora::data
