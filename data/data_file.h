// What is wrong with a file that was given as rows and holds something else: what people really
// hand over is a pointer, a web page, text of another encoding, or one JSON object around the rows.
#pragma once

#include <string>
#include <string_view>

namespace qlora::data {

// JSON Lines or one array; a table; text to train on as it is.
enum class RowText { kJson, kTable, kPlain };

// FormatError if the first bytes of the file say that it is not text in UTF-8, or not of this kind.
void check_first_bytes(const std::string& path, std::string_view bytes, RowText kind);

// What a file of JSON whose first line is no row on its own holds: one object over several lines
// (a row, or which of its members may be the rows), several such objects, or nothing that is known
// (empty). Reads the whole file, unpacked if it is an archive.
std::string whole_file_fault(const std::string& path);

}  // namespace qlora::data
