#include <fmt/format.h>

#include <map>
#include <vector>

#include "base/utf8.h"
#include "data/tokenizers/case_folds.h"
#include "data/tokenizers/named_sets.h"
#include "data/tokenizers/regex_reader.h"
#include "data/tokenizers/translated_pattern.h"
#include "data/tokenizers/unicode.h"

namespace qlora::data {
namespace {

class Parser {
 public:
  Parser(std::string_view pattern, const std::string& where) : reader_(pattern, where) {}

  ParsedPattern run() {
    while (!reader_.at_end()) {
      begin_step();
      const char c = reader_.next();
      if (c == '(') {
        open_group();
      } else if (c == ')') {
        close_group();
      } else if (c == '|') {
        copy(1);
        begin_sequence();
      } else if (c == '*' || c == '+' || c == '?' || (c == '{' && interval_size() > 0)) {
        quantifier();
      } else {
        is_start_ = is_quantified_ = false;
        atom();
      }
    }
    begin_step();
    parsed_.sets.resize(numbers_.size());
    for (auto& [set, number] : numbers_) parsed_.sets[static_cast<size_t>(number)] = set;
    return std::move(parsed_);
  }

 private:
  void begin_step() { parsed_.steps.push_back({reader_.index(), "", -1}); }
  void write(std::string_view text) { parsed_.steps.back().text += text; }
  void write(const CodeSet& set) {
    const auto number = numbers_.emplace(set, static_cast<int>(numbers_.size())).first->second;
    const size_t original = parsed_.steps.back().original;
    parsed_.steps.back().set = number;
    parsed_.steps.push_back({original, "", -1});
  }
  void copy(size_t bytes) { write(reader_.skip(bytes)); }

  // Groups and alternatives.

  void begin_sequence() {
    is_start_ = true;
    is_quantified_ = false;
    last_letter_ = 0;
  }

  void open_group() {
    static constexpr std::string_view kOpenings[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (reader_.next_is("(*")) reader_.refuse("a group that begins with '(*'");
    if (!reader_.next_is("(?")) {
      copy(1);
      return enter_group(reader_.ignores_case, dot_takes_lines_);
    }
    for (const std::string_view opening : kOpenings) {
      if (!reader_.next_is(opening)) continue;
      copy(opening.size());
      return enter_group(reader_.ignores_case, dot_takes_lines_);
    }
    if (reader_.next_is("(?<")) {
      named_group();
      return enter_group(reader_.ignores_case, dot_takes_lines_);
    }
    options();
  }

  // A name is for what refers to it, which is refused.
  void named_group() {
    has_names_ = true;
    const size_t end = reader_.rest().find('>');
    const std::string_view name = reader_.rest().substr(0, end).substr(3);
    bool is_name = end != std::string_view::npos && !name.empty();
    for (size_t at = 0; is_name && at < name.size();) {
      const bool is_first = at == 0;
      const char32_t code = next_code_point(name, at);
      is_name = is_word_character(code) && !(is_first && is_number(code));
    }
    if (!is_name) reader_.reject("a group has no name between '<' and '>'");
    reader_.skip(end + 1);
    write("(");
  }

  // (?im-im) and (?im-im:...). Oniguruma's m is about the dot.
  void options() {
    const std::string_view rest = reader_.rest();
    size_t at = 2;
    bool on = true, ignores_case = reader_.ignores_case, dot_takes_lines = dot_takes_lines_;
    for (; at < rest.size() && rest[at] != ')' && rest[at] != ':'; ++at) {
      const char c = rest[at];
      if (c != 'i' && c != 'm' && c != '-')
        reader_.refuse(fmt::format("a group that begins with '{}'", rest.substr(0, at + 1)));
      if (c == '-') on = false;
      if (c == 'i') ignores_case = on;
      if (c == 'm') dot_takes_lines = on;
    }
    if (at == rest.size()) reader_.refuse("a group without its end");
    if (rest[at] == ':') {
      reader_.skip(at + 1);
      write("(?:");
      return enter_group(ignores_case, dot_takes_lines);
    }
    // For Oniguruma it holds the alternatives that follow, as if in a group of their own.
    if (!is_start_) reader_.refuse("an option that stands inside a sequence");
    reader_.skip(at + 1);
    reader_.ignores_case = ignores_case;
    dot_takes_lines_ = dot_takes_lines;
  }

  void enter_group(bool ignores_case, bool dot_takes_lines) {
    outside_.push_back({reader_.ignores_case, dot_takes_lines_});
    reader_.ignores_case = ignores_case;
    dot_takes_lines_ = dot_takes_lines;
    is_start_ = true;
    is_quantified_ = false;
  }

  void close_group() {
    if (outside_.empty()) reader_.refuse("a ')' without its '('");
    copy(1);
    reader_.ignores_case = outside_.back().ignores_case;
    dot_takes_lines_ = outside_.back().dot_takes_lines;
    outside_.pop_back();
    is_start_ = is_quantified_ = false;
  }

  // Quantifiers.

  // Bytes of the {n}, {n,}, {n,m} or {,m} that comes next; 0: the brace stands for itself.
  size_t interval_size() const {
    const std::string_view rest = reader_.rest();
    size_t end = 1;
    size_t digits = 0;
    for (; end < rest.size() && (is_ascii_digit(rest[end]) || rest[end] == ','); ++end)
      digits += is_ascii_digit(rest[end]);
    const std::string_view inside = rest.substr(1, end - 1);
    const bool is_closed = end < rest.size() && rest[end] == '}';
    const bool is_one = inside.find(',') == inside.rfind(',');
    return digits > 0 && is_closed && is_one ? end + 1 : 0;
  }

  void quantifier() {
    if (is_quantified_) reader_.refuse("a quantifier behind a quantifier");
    if (is_start_) reader_.reject("a quantifier has nothing in front of it");
    is_quantified_ = true;
    last_letter_ = 0;
    if (reader_.next() != '{') {
      copy(1);
      if (reader_.next_is("?")) return lazy();
      if (reader_.next_is("+")) copy(1);
      return;
    }
    const std::string_view interval = reader_.rest().substr(0, interval_size());
    const std::string_view behind = reader_.rest().substr(interval.size());
    // They repeat the repetition, as in (?:a{2})+ and (?:a{2})?.
    if (behind.starts_with('+')) reader_.refuse("a '+' behind an interval");
    const bool is_exact = interval.find(',') == std::string_view::npos;
    if (is_exact && behind.starts_with('?'))
      reader_.refuse("a '?' behind an interval of one number");
    const bool is_from_0 = interval[1] == ',';
    write(is_from_0 ? "{0" + std::string(interval.substr(1)) : std::string(interval));
    reader_.skip(interval.size());
    if (reader_.next_is("?")) lazy();
  }

  void lazy() {
    parsed_.is_lazy = true;
    copy(1);
  }

  // Characters and sets.

  void atom() {
    const char c = reader_.next();
    if (c == '\\') {
      escape();
    } else if (c == '[') {
      write(reader_.bracket_class());
      last_letter_ = 0;
    } else if (c == '.' && dot_takes_lines_) {
      reader_.skip(1);
      any();
      last_letter_ = 0;
    } else if (c == '.' || c == '^' || c == '$') {
      copy(1);
      last_letter_ = 0;
    } else {
      literal();
    }
  }

  void any() { write(CodeSet().complement()); }

  void literal() {
    if (reader_.ignores_case && folds_to_one(last_letter_, reader_.next()))
      reader_.refuse("a pair of letters that other letters fold to, without regard to case,");
    const char32_t code = reader_.character();
    last_letter_ = code < 0x80 ? static_cast<char>(code) : '\0';
    write_character(code);
  }

  // One that stands for itself.
  void write_character(char32_t code) {
    const CodeSet set = reader_.set_of(code);
    if (code >= 0x80 || set != CodeSet(code)) return write(set);
    const char c = static_cast<char>(code);
    const bool is_plain = is_ascii_letter(c) || is_ascii_digit(c);
    write(is_plain ? std::string(1, c) : fmt::format("\\x{{{:X}}}", static_cast<uint32_t>(code)));
  }

  void escape() {
    const char letter = reader_.escaped_letter();
    last_letter_ = 0;
    if (letter == 'p' || letter == 'P') return write(reader_.property());
    if (letter == 'b' || letter == 'B') return boundary(letter == 'b');
    if (letter >= '1' && letter <= '9') return backreference();
    if (letter == 'A' || letter == 'z' || letter == 'Z') return copy(2);
    const auto set = escape_set(letter, false);
    if (!set && std::string_view("vRNO").find(letter) == std::string_view::npos) {
      const char32_t code = reader_.escaped_character();
      return write_character(code);
    }
    reader_.skip(2);
    if (set) return write(*set);
    if (letter == 'v') return write("\\x{B}");
    if (letter == 'N') return write(CodeSet('\n').complement());
    if (letter == 'O') return any();
    write("(?>\\r\\n|");
    write(CodeSet({{'\n', '\r'}, {0x85, 0x85}, {0x2028, 0x2029}}));
    write(")");
  }

  // Where a word begins or ends, or (no boundary) where both sides are alike.
  void boundary(bool is_boundary) {
    reader_.skip(2);
    const CodeSet word = *escape_set('w', false);
    write("(?:(?<=");
    write(word);
    write(is_boundary ? ")(?!" : ")(?=");
    write(word);
    write(")|(?<!");
    write(word);
    write(is_boundary ? ")(?=" : ")(?!");
    write(word);
    write("))");
  }

  void backreference() {
    const std::string_view rest = reader_.rest();
    const bool is_long = rest.size() > 2 && is_ascii_digit(rest[2]);
    if (is_long || has_names_ || reader_.ignores_case)
      reader_.refuse("a number behind a backslash");
    parsed_.compares_text = true;
    copy(2);
  }

  struct Options {
    bool ignores_case, dot_takes_lines;
  };

  RegexReader reader_;
  ParsedPattern parsed_;
  std::map<CodeSet, int> numbers_;  // of ParsedPattern::sets
  std::vector<Options> outside_;    // behind the groups that are open
  bool dot_takes_lines_ = false;    // a '.' matches a line feed as well
  bool is_start_ = true;            // of a group or an alternative
  bool is_quantified_ = false;      // what was read last
  bool has_names_ = false;          // groups with a name
  char last_letter_ = 0;            // the literal of ASCII in front
};

}  // namespace

ParsedPattern parse_oniguruma(std::string_view pattern, const std::string& where) {
  return Parser(pattern, where).run();
}

}  // namespace qlora::data
