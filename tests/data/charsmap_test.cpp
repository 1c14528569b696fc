#include "data/tokenizers/charsmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/small_vocabularies.h"

namespace qlora::data {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(CharsMap, TheLongestSequenceIsReplaced) {
  const CharsMap map(test::charsmap_of({{"a", "1"}, {"abc", "3"}, {"é", "e"}, {"x", ""}}), "m");
  EXPECT_EQ(map.apply("abc ab a"), "3 1b 1");
  EXPECT_EQ(map.apply("éxéy例"), "eey例");
  EXPECT_EQ(map.apply(""), "");
  EXPECT_EQ(map.apply(std::string("\0b", 2)), std::string("\0b", 2));
}

// The first two bytes of "例" alone, "ä" beginning as "é" does.
TEST(CharsMap, ASequenceThatEndsWithinACharacterIsNone) {
  const CharsMap map(test::charsmap_of({{"\xe4\xbe", "?"}, {"é", "e"}}), "m");
  EXPECT_EQ(map.apply("例ä"), "例ä");
}

TEST(CharsMap, DamagedBytesAreRefusedByTheirPlace) {
  const std::string whole = test::charsmap_of({{"a", "1"}});
  const auto refused = [](const std::string& bytes) {
    EXPECT_THAT([&] { CharsMap(bytes, "some.json").apply("a"); },
                ThrowsMessage<FormatError>(HasSubstr("some.json")))
        << bytes.size();
  };
  refused("");
  refused("abc");
  refused(whole.substr(0, 100));
  refused(whole.substr(0, whole.size() - 2));  // without the replacement
  refused(whole + "\xff");
  std::string far = whole;
  far[4 + 3] = '\x40';  // the first offset leads out of the table
  refused(far);
}

}  // namespace
}  // namespace qlora::data
