#include "data/messages_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::data {
namespace {
using test::TempDir;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(MessagesFile, WholeNumbersKeepTheirDigits) {
  const TempDir dir;
  const std::string path =
      dir.write("m.json", R"([{"role": "user", "content": "q", "id": 12345678901234567890123}])");
  const Json messages = read_messages(path);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_TRUE(messages[0]["id"].is_binary());
}

std::string refusal(const std::string& text) {
  const TempDir dir;
  try {
    read_messages(dir.write("m.json", text));
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no FormatError";
}

TEST(MessagesFile, WhatIsNoArrayOfMessagesIsRefusedWithItsPlace) {
  EXPECT_THAT(refusal("{\"role\": \"user\"}"),
              HasSubstr("must be a JSON array of messages, found object"));
  EXPECT_THAT(
      refusal("[{\"role\":\n  'user'}]"),
      AllOf(HasSubstr("m.json"), HasSubstr("line 2, column 3"),
            HasSubstr("in JSON texts stand in double quotes"), Not(HasSubstr("json.exception"))));
  EXPECT_THAT(refusal(std::string(201, '[') + std::string(201, ']')), HasSubstr("nests deeper"));
  EXPECT_THAT(refusal(std::string("\x1f\x8b\x08\x00", 4)), HasSubstr("gzip"));
}

}  // namespace
}  // namespace qlora::data
