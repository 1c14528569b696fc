#include "export/card_text.h"

#include <gtest/gtest.h>

namespace qlora::exporting {
namespace {

TEST(CardText, PlainNamesStayAsTheyAre) {
  for (const char* name : {"org/name@v1.0", "m.Q4_1.gguf", "path/to/llama-3+b", "a=b,c:d%e"}) {
    EXPECT_EQ(shell_word(name), name);
    EXPECT_EQ(python_text(name), "\"" + std::string(name) + "\"");
    EXPECT_EQ(markdown_text(name), name);
    EXPECT_EQ(code_span(name), "`" + std::string(name) + "`");
  }
}

TEST(CardText, AShellReadsOneWordAndRunsNothing) {
  EXPECT_EQ(shell_word("a b\"c.gguf"), "'a b\"c.gguf'");
  EXPECT_EQ(shell_word("$(x)"), "'$(x)'");
  EXPECT_EQ(shell_word("a;b"), "'a;b'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_word("~"), "'~'");
  EXPECT_EQ(shell_word("Zürich"), "'Zürich'");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("a\n```\nb\x1B"), "'a ``` b\\x1B'") << "the end of the block it stands in";
}

TEST(CardText, PythonReadsTheTextItself) {
  EXPECT_EQ(python_text("a b\"c.gguf"), "\"a b\\\"c.gguf\"");
  EXPECT_EQ(python_text("a\\n"), "\"a\\\\n\"");
  EXPECT_EQ(python_text("a\n\tb\r\x7F"), "\"a\\n\\tb\\x0D\\x7F\"");
  EXPECT_EQ(python_text("Zürich"), "\"Zürich\"");
}

TEST(CardText, MarkdownShowsTheCharactersThemselvesOnOneLine) {
  EXPECT_EQ(markdown_text("a\n# b"), "a # b");
  EXPECT_EQ(markdown_text("`a` [b](c) <d> *e* \\"), "\\`a\\` \\[b\\](c) \\<d\\> \\*e\\* \\\\");
  EXPECT_EQ(code_span("a\nb"), "`a b`");
  EXPECT_EQ(code_span("a`b"), "``a`b``");
  EXPECT_EQ(code_span("a``"), "``` a`` ```");
}

}  // namespace
}  // namespace qlora::exporting
