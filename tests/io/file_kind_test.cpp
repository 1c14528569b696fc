// What a file is by its first bytes, and which bytes are mistaken for none.
#include "io/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "io/json.h"
#include "io/json_text.h"
#include "nlohmann/json.hpp"

namespace qlora::io {
namespace {

using namespace std::string_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// ASCII letters with a zero behind each (little endian) or before it.
std::string in_utf16(const std::string& text, bool big) {
  std::string wide;
  for (const char c : text) wide += big ? "\0"s + c : c + "\0"s;
  return wide;
}

TEST(WideTextKind, IsToldByZerosInEveryLetterAndNotByAStrayOne) {
  const std::string row = R"({"text": "a row of some length"})";
  EXPECT_THAT(wide_text_kind(in_utf16(row, false)), HasSubstr("iconv -f UTF-16LE"));
  EXPECT_THAT(wide_text_kind(in_utf16(row, true)), HasSubstr("iconv -f UTF-16BE"));
  for (size_t at = 0; at < row.size(); ++at) {
    std::string stray = row;
    stray[at] = '\0';
    EXPECT_EQ(wide_text_kind(stray), "") << at;
  }
  // Chinese in UTF-16, whose few zeros are those of a comma and a line break; in UTF-8 with a zero.
  std::string chinese;
  for (int i = 0; i < 20; ++i) chinese += "\x7f\x89\xe5\x65"s;
  EXPECT_THAT(wide_text_kind(chinese + ",\0"s + chinese), HasSubstr("UTF-16LE"));
  EXPECT_EQ(wide_text_kind("\xe4\xb8\xad\xe6\x96\x87\xe4\xb8\xad\xe6\x96\x87\n\0"s), "");
}

TEST(KindByFirstBytes, DocumentsAndArchivesAreNamedWithWhatToDo) {
  const auto kind = [](const std::string& bytes) {
    return kind_by_first_bytes(std::string_view(bytes));
  };
  const std::string zip = "PK\x03\x04" + std::string(26, '\0');
  EXPECT_THAT(kind(zip + "[Content_Types].xml...xl/workbook.xml"),
              HasSubstr("save its sheet as CSV"));
  EXPECT_THAT(kind(zip + "[Content_Types].xml...word/document.xml"), HasSubstr("a Word document"));
  EXPECT_THAT(kind(zip + "mimetypeapplication/vnd.oasis.opendocument.spreadsheet"),
              HasSubstr("save its sheet as CSV"));
  EXPECT_THAT(kind(zip + "docProps/app.xml"), HasSubstr("document of an Office program"));
  EXPECT_THAT(kind(zip + "archive/data.pkl"), HasSubstr("PyTorch's .bin"));
  EXPECT_THAT(kind("%PDF-1.7"), HasSubstr("a PDF document"));
  EXPECT_THAT(kind("SQLite format 3\0..."s), HasSubstr("SQLite"));
  EXPECT_THAT(kind(std::string(257, 'a') + "ustar\0"s + "00"), HasSubstr("a tar archive"));
  EXPECT_EQ(kind(std::string(257, 'a') + "usual"), "");
  EXPECT_THAT(kind("<?xml version=\"1.0\"?>"), HasSubstr("an XML document"));
  for (const char* page : {"<!doctype html>", "<!DocType HTML>", "\n <HTML>", "<html lang=\"en\">"})
    EXPECT_THAT(kind(page), HasSubstr("a web page")) << page;
  for (const char* text : {"", "<", "{\"a\": 1}", "<b>bold</b>", "Rar! he said"})
    EXPECT_EQ(kind(text), "");
}

TEST(JsonText, WhatIsAnotherKindOfFileIsSaidToBeOne) {
  const auto refusal = [](const std::string& text) {
    std::string said;
    for (const auto& parse :
         {std::function([](const std::string& t) { json_from_text(t, "c.json"); }),
          std::function([](const std::string& t) { parse_json(t, "c.json"); })})
      try {
        parse(text);
        said += "no error. ";
      } catch (const FormatError& error) {
        said += error.what() + std::string(". ");
      }
    return said;
  };
  EXPECT_THAT(
      refusal("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n"),
      AllOf(testing::ContainsRegex(
                "c.json must be JSON, but is a Git LFS.*c.json must be JSON, but is a Git LFS"),
            Not(HasSubstr("line 1"))));
  EXPECT_THAT(refusal(in_utf16("{\"a\": 1}", false)),
              testing::ContainsRegex("is text in UTF-16.*is text in UTF-16"));
  EXPECT_EQ(refusal("{\"a\": 1}"), "no error. no error. ");
}

}  // namespace
}  // namespace qlora::io
