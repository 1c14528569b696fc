#include "io/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::io {
namespace {
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

std::string refusal(const std::function<void()>& read) {
  try {
    read();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no FormatError";
}

std::string many(const std::string& character) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += character;
  return text;
}

// With the quote in front, the sixtieth byte lies within a character of two bytes and of four.
TEST(JsonNode, AShownTextIsCutBetweenTwoCharacters) {
  for (const std::string character : {"\u00FC", "\u6771", "\U0001F600"}) {
    const nlohmann::json value = {{"key", many(character)}};
    const std::string message = refusal([&] { JsonNode(value, "f").at("key").as_bool(); });
    EXPECT_THAT(message, EndsWith(character + "..."));
    EXPECT_EQ(find_invalid_utf8(message), std::nullopt) << message;
  }
}

TEST(ParseJson, ANameThatStandsThereTwiceIsCutBetweenTwoCharacters) {
  const std::string name = "k" + many("\u00FC");
  const std::string text = "{\"" + name + "\": 1, \"" + name + "\": 2}";
  const std::string message = refusal([&] { parse_json(text, "f"); });
  EXPECT_THAT(message, HasSubstr("stands there twice"));
  EXPECT_EQ(find_invalid_utf8(message), std::nullopt) << message;
}

TEST(ParseJson, AFaultHasALineAndAColumnAndNoWordsOfTheLibrary) {
  const auto refused = [](const std::string& text) {
    return refusal([&] { parse_json(text, "f.json"); });
  };
  EXPECT_EQ(refused("{\n \"k\u00FC\": NaN\n}"),
            "f.json is not valid JSON at line 2, column 8, behind ' \"k\u00FC\": ': 'NaN'; JSON "
            "has no NaN or Infinity: write null");
  EXPECT_THAT(refused("{\"a\": 1,\n}"), AllOf(HasSubstr("line 2, column 1"),
                                              EndsWith("no comma stands behind the last member")));
  EXPECT_EQ(refused("[1,\n2"),
            "f.json is not valid JSON: the text ends before its last bracket or quote is closed");
  EXPECT_EQ(refused(" \n"), "f.json is not valid JSON: the text is empty");
  EXPECT_EQ(refused("[\"a\nb\"]"),
            "f.json is not valid JSON at line 1, column 4, behind '[\"a': the line ends");
  EXPECT_EQ(refused("[\"a\",\n \"\xFF\"]"),
            "f.json is not valid JSON: line 2, column 3 is not UTF-8");
  EXPECT_EQ(refused("[1e999]"), "f.json is not valid JSON: a number is too large");
  for (const char* text : {"{\"a\" 1}", "[1 2]", "tru", "[\"\\x\"]", "1 2"})
    EXPECT_THAT(refused(text),
                AllOf(HasSubstr("f.json is not valid JSON"), Not(HasSubstr("json.exception"))));
}

}  // namespace
}  // namespace qlora::io
