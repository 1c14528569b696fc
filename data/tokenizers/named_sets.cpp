#include "data/tokenizers/named_sets.h"

#include <map>
#include <vector>

#include "data/tokenizers/unicode.h"
#include "data/tokenizers/unicode_tables.h"

namespace qlora::data {
namespace {

using unicode_tables::Category;
using unicode_tables::kAlphabetic;
using unicode_tables::kCategory;
using unicode_tables::kClasses;

constexpr uint32_t bits(Category first, Category last) {
  return (uint32_t{2} << static_cast<int>(last)) - (uint32_t{1} << static_cast<int>(first));
}

constexpr uint32_t bit(Category category) { return bits(category, category); }

constexpr uint32_t kCased = bits(Category::kLu, Category::kLt);
constexpr uint32_t kLetters = bits(Category::kLu, Category::kLo);
constexpr uint32_t kMarks = bits(Category::kMn, Category::kMe);
constexpr uint32_t kNumbers = bits(Category::kNd, Category::kNo);
constexpr uint32_t kPunctuation = bits(Category::kPc, Category::kPo);
constexpr uint32_t kSymbols = bits(Category::kSm, Category::kSo);
constexpr uint32_t kSeparators = bits(Category::kZs, Category::kZp);
constexpr uint32_t kOthers = bits(Category::kCc, Category::kCn);
constexpr uint32_t kAssigned = bits(Category::kLu, Category::kCo);
constexpr uint32_t kVisible =
    bits(Category::kLu, Category::kSo) | bit(Category::kCf) | bit(Category::kCo);

// A set of categories, of what is Alphabetic, and of single characters.
struct Union {
  uint32_t categories = 0;
  bool alphabetic = false;
  std::vector<CodeSet::Range> others = {};
};

CodeSet set_of(const Union& wanted) {
  std::vector<CodeSet::Range> found = wanted.others;
  for (size_t run = 0; run < kClasses.size(); ++run) {
    const auto& [first, value] = kClasses[run];
    const auto category = static_cast<Category>(value & kCategory);
    const char32_t last = run + 1 < kClasses.size() ? kClasses[run + 1].first - 1 : CodeSet::kLast;
    if ((wanted.categories & bit(category)) || (wanted.alphabetic && (value & kAlphabetic)))
      found.push_back({first, last});
  }
  return CodeSet(std::move(found));
}

CodeSet white_space() {
  std::vector<CodeSet::Range> found;
  constexpr char32_t kLastOne = 0x3000;
  for (char32_t code = 0; code <= kLastOne; ++code)
    if (is_white_space(code)) found.push_back({code, code});
  return CodeSet(std::move(found));
}

Union word() {
  return {.categories = kMarks | bit(Category::kNd) | bit(Category::kPc), .alphabetic = true};
}

Union hex_digits() { return {.others = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}}; }

// By names without blanks, '_' and '-' in lower case.
const std::map<std::string_view, Union>& unions() {
  static const Union alphabetic = {.alphabetic = true};
  static const Union upper = {.categories = bit(Category::kLu),
                              .others = {{0x2160, 0x216F},
                                         {0x24B6, 0x24CF},
                                         {0x1F130, 0x1F149},
                                         {0x1F150, 0x1F169},
                                         {0x1F170, 0x1F189}}};
  static const std::map<std::string_view, Union> sets = {
      {"l", {.categories = kLetters}},
      {"letter", {.categories = kLetters}},
      {"lu", {.categories = bit(Category::kLu)}},
      {"uppercaseletter", {.categories = bit(Category::kLu)}},
      {"ll", {.categories = bit(Category::kLl)}},
      {"lowercaseletter", {.categories = bit(Category::kLl)}},
      {"lt", {.categories = bit(Category::kLt)}},
      {"titlecaseletter", {.categories = bit(Category::kLt)}},
      {"lm", {.categories = bit(Category::kLm)}},
      {"modifierletter", {.categories = bit(Category::kLm)}},
      {"lo", {.categories = bit(Category::kLo)}},
      {"otherletter", {.categories = bit(Category::kLo)}},
      {"m", {.categories = kMarks}},
      {"mark", {.categories = kMarks}},
      {"mn", {.categories = bit(Category::kMn)}},
      {"nonspacingmark", {.categories = bit(Category::kMn)}},
      {"mc", {.categories = bit(Category::kMc)}},
      {"spacingmark", {.categories = bit(Category::kMc)}},
      {"me", {.categories = bit(Category::kMe)}},
      {"enclosingmark", {.categories = bit(Category::kMe)}},
      {"n", {.categories = kNumbers}},
      {"number", {.categories = kNumbers}},
      {"nd", {.categories = bit(Category::kNd)}},
      {"decimalnumber", {.categories = bit(Category::kNd)}},
      {"nl", {.categories = bit(Category::kNl)}},
      {"letternumber", {.categories = bit(Category::kNl)}},
      {"no", {.categories = bit(Category::kNo)}},
      {"othernumber", {.categories = bit(Category::kNo)}},
      {"p", {.categories = kPunctuation}},
      {"punctuation", {.categories = kPunctuation}},
      {"pc", {.categories = bit(Category::kPc)}},
      {"connectorpunctuation", {.categories = bit(Category::kPc)}},
      {"pd", {.categories = bit(Category::kPd)}},
      {"dashpunctuation", {.categories = bit(Category::kPd)}},
      {"ps", {.categories = bit(Category::kPs)}},
      {"openpunctuation", {.categories = bit(Category::kPs)}},
      {"pe", {.categories = bit(Category::kPe)}},
      {"closepunctuation", {.categories = bit(Category::kPe)}},
      {"pi", {.categories = bit(Category::kPi)}},
      {"initialpunctuation", {.categories = bit(Category::kPi)}},
      {"pf", {.categories = bit(Category::kPf)}},
      {"finalpunctuation", {.categories = bit(Category::kPf)}},
      {"po", {.categories = bit(Category::kPo)}},
      {"otherpunctuation", {.categories = bit(Category::kPo)}},
      {"s", {.categories = kSymbols}},
      {"symbol", {.categories = kSymbols}},
      {"sm", {.categories = bit(Category::kSm)}},
      {"mathsymbol", {.categories = bit(Category::kSm)}},
      {"sc", {.categories = bit(Category::kSc)}},
      {"currencysymbol", {.categories = bit(Category::kSc)}},
      {"sk", {.categories = bit(Category::kSk)}},
      {"modifiersymbol", {.categories = bit(Category::kSk)}},
      {"so", {.categories = bit(Category::kSo)}},
      {"othersymbol", {.categories = bit(Category::kSo)}},
      {"z", {.categories = kSeparators}},
      {"separator", {.categories = kSeparators}},
      {"zs", {.categories = bit(Category::kZs)}},
      {"spaceseparator", {.categories = bit(Category::kZs)}},
      {"zl", {.categories = bit(Category::kZl)}},
      {"lineseparator", {.categories = bit(Category::kZl)}},
      {"zp", {.categories = bit(Category::kZp)}},
      {"paragraphseparator", {.categories = bit(Category::kZp)}},
      {"c", {.categories = kOthers}},
      {"other", {.categories = kOthers}},
      {"cc", {.categories = bit(Category::kCc)}},
      {"control", {.categories = bit(Category::kCc)}},
      {"cf", {.categories = bit(Category::kCf)}},
      {"format", {.categories = bit(Category::kCf)}},
      {"co", {.categories = bit(Category::kCo)}},
      {"privateuse", {.categories = bit(Category::kCo)}},
      {"cn", {.categories = bit(Category::kCn)}},
      {"unassigned", {.categories = bit(Category::kCn)}},
      {"cs", {.categories = 0}},
      {"surrogate", {.categories = 0}},
      // what follows are POSIX's names, and properties that are no categories
      {"digit", {.categories = bit(Category::kNd)}},
      {"cntrl", {.categories = bit(Category::kCc)}},
      {"punct", {.categories = kPunctuation}},
      {"posixpunct", {.categories = kPunctuation | kSymbols}},
      {"alpha", alphabetic},
      {"alphabetic", alphabetic},
      {"alnum", {.categories = bit(Category::kNd), .alphabetic = true}},
      {"graph", {.categories = kVisible}},
      {"print", {.categories = kVisible | bit(Category::kZs)}},
      {"blank", {.categories = bit(Category::kZs), .others = {{'\t', '\t'}}}},
      {"upper", upper},
      {"uppercase", upper},
      {"xdigit", hex_digits()},
      {"asciihexdigit", hex_digits()},
      {"ascii", {.others = {{0, 0x7F}}}},
      {"lc", {.categories = kCased}},
      {"casedletter", {.categories = kCased}},
      {"any", {.others = {{0, CodeSet::kLast}}}},
      {"assigned", {.categories = kAssigned}}};
  return sets;
}

}  // namespace

std::optional<CodeSet> property_set(std::string_view plain_name) {
  for (const char* name : {"space", "whitespace", "wspace"})
    if (plain_name == name) return white_space();
  const auto found = unions().find(plain_name);
  if (found == unions().end()) return std::nullopt;
  return set_of(found->second);
}

std::optional<CodeSet> posix_set(std::string_view name) {
  if (name == "word") return set_of(word());
  if (name == "punct") return property_set("posixpunct");
  for (const char* other : {"alpha", "alnum", "upper", "graph", "print", "space", "blank", "cntrl",
                            "digit", "xdigit", "ascii"})
    if (name == other) return property_set(name);
  return std::nullopt;
}

std::optional<CodeSet> escape_set(char letter, bool in_class) {
  switch (letter) {
    case 's':
      return white_space();
    case 'd':
      return property_set("nd");
    case 'h':
      return set_of(hex_digits());
    case 'w': {
      Union set = word();
      if (!in_class) set.others = {{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}};
      return set_of(set);
    }
    case 'S':
    case 'D':
    case 'H':
    case 'W':
      return escape_set(static_cast<char>(letter + ('a' - 'A')), in_class)->complement();
    default:
      return std::nullopt;
  }
}

}  // namespace qlora::data
