// Text from outside (names in files, tokens, a library's words) as a terminal and a log may show
// it.
#pragma once

#include <string>
#include <string_view>

namespace qlora {

// `text` with what is not UTF-8 (RFC 3629) replaced by U+FFFD, one for each byte, and control
// characters other than line ends and tabs written as \x1B: names in files shall not steer a
// terminal. More than 4,000 bytes of one line are cut in the middle, and so is a text of more than
// 256,000.
std::string shown_text(std::string_view text);

}  // namespace qlora
