#include "data/tokenizers/added_tokens.h"

#include <gtest/gtest.h>

namespace qlora::data {
namespace {

struct Found {
  std::string text;
  TokenId id;
  friend bool operator==(const Found&, const Found&) = default;
};

std::vector<Found> split(std::vector<AddedToken> tokens, const std::string& text) {
  const AddedTokens added(std::move(tokens), nullptr, "test");
  std::vector<Found> found;
  for (const Segment& segment : added.split_raw(text)) {
    const auto& [begin, end] = segment.span;
    found.push_back({text.substr(begin, end - begin), segment.id});
  }
  return found;
}

using Parts = std::vector<Found>;

TEST(AddedTokens, SideBySideTheFirstTakesTheWhiteSpace) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<a>", .rstrip = true},
                                          {.id = 2, .content = "<b>", .lstrip = true}};
  EXPECT_EQ(split(tokens, "x <a>  <b> y"),
            (Parts{{"x ", -1}, {"<a>  ", 1}, {"<b>", 2}, {" y", -1}}));
  EXPECT_EQ(split(tokens, "<b> \t<b>"), (Parts{{"<b>", 2}, {" \t<b>", 2}}));
}

TEST(AddedTokens, AWhiteSpaceTokenThatWasSwallowedIsDroppedIfItStripsOnItsLeft) {
  const AddedToken swallows{.id = 1, .content = "<a>", .rstrip = true};
  EXPECT_EQ(split({swallows, {.id = 2, .content = "  ", .lstrip = true}}, "<a>  x  "),
            (Parts{{"<a>  ", 1}, {"x", -1}, {"  ", 2}}));
  EXPECT_EQ(split({swallows, {.id = 2, .content = "  "}}, "<a>  x"),
            (Parts{{"<a>  ", 1}, {"  ", 2}, {"x", -1}}));
  EXPECT_EQ(split({swallows, {.id = 3, .content = " <s", .lstrip = true}}, "<a> <sy"),
            (Parts{{"<a> ", 1}, {"<s", 3}, {"y", -1}}));
}

}  // namespace
}  // namespace qlora::data
