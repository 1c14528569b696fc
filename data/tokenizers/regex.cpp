#include "data/tokenizers/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/utf8.h"
#include "data/tokenizers/stand_ins.h"
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
  const StandIns stand_ins;

  explicit Compiled(std::string_view pattern) : stand_ins(pattern) {}

  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where) {
  check_utf8(pattern, where);
  const TranslatedPattern translated = translate_oniguruma(pattern, where);
  compiled_ = std::make_unique<Compiled>(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  check(context, "Regex: PCRE2 got no memory for a pattern");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // Oniguruma's ^ and $ always stand at lines.
  compiled_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.text.data()), translated.text.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!compiled_->code) {
    const size_t place = translated.original(offset);
    fail<FormatError>("{}: there must be a regular expression, but {} at offset {} of '{}'", where,
                      error_text(error), place, quoted_pattern(pattern, place));
  }
  compiled_->jit = pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::optional<std::string> Regex::prepared(std::string_view text) const {
  return compiled_->stand_ins.replace(text);
}

bool Regex::find(std::string_view text, size_t from, Match& match) const {
  thread_local const MatchState state;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto run = compiled_->jit ? &pcre2_jit_match : &pcre2_match;
  const int found = run(compiled_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state.data,
                        state.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  // 0: the pattern has groups, and only the whole match fitted; that is all we ask for.
  check(found >= 0, "Regex: matching stopped at offset {} of a text of {} bytes: {}", from,
        text.size(), found < 0 ? error_text(found) : "");
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.data);
  match = {offsets[0], offsets[1]};
  return true;
}

}  // namespace qlora::data
