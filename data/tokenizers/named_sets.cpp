#include "data/tokenizers/named_sets.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {
namespace {

using unicode_tables::Category;
using unicode_tables::kAlphabetic;
using unicode_tables::kCategory;
using unicode_tables::kClasses;

constexpr char32_t kLimit = 0x110000;

struct Interval {
  char32_t begin, end;
};

constexpr Interval kSurrogates = {0xD800, 0xE000};

constexpr uint32_t bit(Category category) { return uint32_t{1} << static_cast<int>(category); }

constexpr uint32_t bits(Category first, Category last) { return (bit(last) << 1) - bit(first); }

constexpr uint32_t kMarks = bits(Category::kMn, Category::kMe);
constexpr uint32_t kSigns = bits(Category::kPc, Category::kSo);  // punctuation and symbols
constexpr uint32_t kVisible =
    bits(Category::kLu, Category::kSo) | bit(Category::kCf) | bit(Category::kCo);

// A set of categories, of what is Alphabetic, and of single characters.
struct Union {
  uint32_t categories = 0;
  bool alphabetic = false;
  std::vector<Interval> others = {};
};

std::vector<Interval> intervals_of(const Union& set) {
  std::vector<Interval> found = set.others;
  for (size_t run = 0; run < kClasses.size(); ++run) {
    const auto& [first, value] = kClasses[run];
    const auto category = static_cast<Category>(value & kCategory);
    const char32_t end = run + 1 < kClasses.size() ? kClasses[run + 1].first : kLimit;
    if ((set.categories & bit(category)) || (set.alphabetic && (value & kAlphabetic)))
      found.push_back({first, end});
  }
  std::ranges::sort(found, {}, &Interval::begin);
  return found;
}

std::string ranges_text(const Union& set, bool is_negated) {
  std::string text;
  const auto add = [&](char32_t begin, char32_t end) {
    // PCRE2 takes no range that ends within the surrogates, which the tables count with others.
    if (begin >= kSurrogates.begin && begin < kSurrogates.end) begin = kSurrogates.end;
    if (end > kSurrogates.begin && end <= kSurrogates.end) end = kSurrogates.begin;
    if (begin < end)
      text += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", static_cast<uint32_t>(begin),
                          static_cast<uint32_t>(end) - 1);
  };
  Interval open = {0, 0};  // those that touch become one
  for (const Interval& next : intervals_of(set)) {
    if (next.begin > open.end) {
      is_negated ? add(open.end, next.begin) : add(open.begin, open.end);
      open = next;
    }
    open.end = std::max(open.end, next.end);
  }
  is_negated ? add(open.end, kLimit) : add(open.begin, open.end);
  return text;
}

// What PCRE2 calls a property, by its names without blanks, '_' and '-' in lower case.
const std::map<std::string_view, const char*>& properties() {
  static const std::map<std::string_view, const char*> names = {
      {"l", "L"},
      {"letter", "L"},
      {"lu", "Lu"},
      {"uppercaseletter", "Lu"},
      {"ll", "Ll"},
      {"lowercaseletter", "Ll"},
      {"lt", "Lt"},
      {"titlecaseletter", "Lt"},
      {"lm", "Lm"},
      {"modifierletter", "Lm"},
      {"lo", "Lo"},
      {"otherletter", "Lo"},
      {"m", "M"},
      {"mark", "M"},
      {"mn", "Mn"},
      {"nonspacingmark", "Mn"},
      {"mc", "Mc"},
      {"spacingmark", "Mc"},
      {"me", "Me"},
      {"enclosingmark", "Me"},
      {"n", "N"},
      {"number", "N"},
      {"nd", "Nd"},
      {"decimalnumber", "Nd"},
      {"nl", "Nl"},
      {"letternumber", "Nl"},
      {"no", "No"},
      {"othernumber", "No"},
      {"p", "P"},
      {"punctuation", "P"},
      {"pc", "Pc"},
      {"connectorpunctuation", "Pc"},
      {"pd", "Pd"},
      {"dashpunctuation", "Pd"},
      {"ps", "Ps"},
      {"openpunctuation", "Ps"},
      {"pe", "Pe"},
      {"closepunctuation", "Pe"},
      {"pi", "Pi"},
      {"initialpunctuation", "Pi"},
      {"pf", "Pf"},
      {"finalpunctuation", "Pf"},
      {"po", "Po"},
      {"otherpunctuation", "Po"},
      {"s", "S"},
      {"symbol", "S"},
      {"sm", "Sm"},
      {"mathsymbol", "Sm"},
      {"sc", "Sc"},
      {"currencysymbol", "Sc"},
      {"sk", "Sk"},
      {"modifiersymbol", "Sk"},
      {"so", "So"},
      {"othersymbol", "So"},
      {"z", "Z"},
      {"separator", "Z"},
      {"zs", "Zs"},
      {"spaceseparator", "Zs"},
      {"zl", "Zl"},
      {"lineseparator", "Zl"},
      {"zp", "Zp"},
      {"paragraphseparator", "Zp"},
      {"c", "C"},
      {"other", "C"},
      {"cc", "Cc"},
      {"control", "Cc"},
      {"cf", "Cf"},
      {"format", "Cf"},
      {"co", "Co"},
      {"privateuse", "Co"},
      {"cn", "Cn"},
      {"unassigned", "Cn"},
      {"cs", "Cs"},
      {"surrogate", "Cs"},
      {"digit", "Nd"},  // what follows are POSIX's names, and the two properties that are tables
      {"cntrl", "Cc"},
      {"punct", "P"},
      {"alpha", "Alphabetic"},
      {"alphabetic", "Alphabetic"},
      {"space", "White_Space"},
      {"whitespace", "White_Space"},
      {"wspace", "White_Space"}};
  return names;
}

const std::map<std::string_view, Union>& unions() {
  static const Union upper = {.categories = bit(Category::kLu),
                              .others = {{0x2160, 0x2170},
                                         {0x24B6, 0x24D0},
                                         {0x1F130, 0x1F14A},
                                         {0x1F150, 0x1F16A},
                                         {0x1F170, 0x1F18A}}};
  static const Union xdigit = {.others = {{'0', '9' + 1}, {'A', 'F' + 1}, {'a', 'f' + 1}}};
  static const std::map<std::string_view, Union> sets = {
      {"alnum", {.categories = bit(Category::kNd), .alphabetic = true}},
      {"graph", {.categories = kVisible}},
      {"print", {.categories = kVisible | bit(Category::kZs)}},
      {"blank", {.categories = bit(Category::kZs), .others = {{'\t', '\t' + 1}}}},
      {"upper", upper},
      {"uppercase", upper},
      {"xdigit", xdigit},
      {"asciihexdigit", xdigit},
      {"ascii", {.others = {{0, 0x80}}}},
      {"posixpunct", {.categories = kSigns}},
      {"lc", {.categories = bits(Category::kLu, Category::kLt)}},
      {"casedletter", {.categories = bits(Category::kLu, Category::kLt)}},
      {"any", {.others = {{0, kLimit}}}},
      {"assigned", {.categories = bits(Category::kLu, Category::kCo)}}};
  return sets;
}

}  // namespace

std::optional<std::string> property_set(std::string_view plain_name, bool is_negated) {
  if (const auto one = properties().find(plain_name); one != properties().end())
    return fmt::format("\\{}{{{}}}", is_negated ? 'P' : 'p', one->second);
  if (const auto set = unions().find(plain_name); set != unions().end())
    return ranges_text(set->second, is_negated);
  return std::nullopt;
}

std::optional<std::string> posix_set(std::string_view name, bool is_negated) {
  static const Union word = {.categories = kMarks | bit(Category::kNd) | bit(Category::kPc),
                             .alphabetic = true};
  if (name == "word") return ranges_text(word, is_negated);
  if (name == "punct") return property_set("posixpunct", is_negated);
  for (const char* other : {"alpha", "alnum", "upper", "graph", "print", "space", "blank", "cntrl",
                            "digit", "xdigit", "ascii"})
    if (name == other) return property_set(name, is_negated);
  return std::nullopt;
}

}  // namespace qlora::data
