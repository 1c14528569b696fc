#include "data/mask_view.h"

#include <gtest/gtest.h>

#include "tests/data/byte_tokenizer.h"

namespace qlora::data {
namespace {

using test::ByteTokenizer;

TEST(MaskView, MarksTrainedRuns) {
  const ByteTokenizer tokenizer;
  const Example example{{'q', 'a', 'b', ByteTokenizer::kEnd, '\n'}, {0, 1, 1, 1, 0}};
  EXPECT_EQ(masked_text(example, tokenizer, false), "q⟦ab<|im_end|>⟧\n");
  EXPECT_EQ(masked_text(example, tokenizer, true),
            "\x1b[90mq\x1b[0m\x1b[32mab<|im_end|>\x1b[0m\x1b[90m\n\x1b[0m");
}

TEST(MaskView, ARowCannotSendEscapesToTheTerminal) {
  const ByteTokenizer tokenizer;
  // ESC ] (set the window title), DEL, and CSI as the C1 character U+009B.
  const Example example{{27, ']', 127, 0xc2, 0x9b, 0xc3, 0xa9}, {0, 0, 0, 0, 0, 0, 0}};
  EXPECT_EQ(masked_text(example, tokenizer, false), "\\x1b]\\x7f\\xc2\\x9bé");
}

TEST(MaskView, SpansFollowTheMaskAndHoldNoControlCharacters) {
  const ByteTokenizer tokenizer;
  const Example example{{'q', 27, 'a', 'b', '\n'}, {0, 0, 1, 1, 0}};
  const std::vector<MaskedSpan> spans = masked_spans(example, tokenizer);
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[0].text, "q\\x1b");
  EXPECT_EQ(spans[1].text, "ab");
  EXPECT_TRUE(spans[1].trained);
  EXPECT_EQ(spans[2].text, "\n");
  EXPECT_FALSE(spans[2].trained);
}

TEST(MaskView, JsonHoldsTokensAndMask) {
  const Example example{{5, 6}, {0, 1}, 7, 2};
  EXPECT_EQ(example_json(example),
            R"({"source":2,"row":7,"tokens":[5,6],"supervised":[0,1],"num_supervised":1})");
}

}  // namespace
}  // namespace qlora::data
