#include "io/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::io {
namespace {
using testing::EndsWith;
using testing::HasSubstr;

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

}  // namespace
}  // namespace qlora::io
