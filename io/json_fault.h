// What keeps a text from being JSON, in the words of this program: nlohmann's name its own
// classes.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace qlora::io {

// The end of a sentence "... not valid JSON" about `text`, which nlohmann's parser refused with
// `error`: " at line 3, column 7, behind '{"a": ': 'NaN}'; JSON has no NaN or Infinity: write
// null". Columns count characters.
std::string json_fault(std::string_view text, const std::exception& error);

// The same of a text that is called `what` in a message which has named its place already:
// " at byte 7 of the row, behind ...".
std::string json_fault_in(std::string_view what, std::string_view text,
                          const std::exception& error);

}  // namespace qlora::io
