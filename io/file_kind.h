// What a file is by its first bytes, for messages about files that are not what they were given as.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace qlora::io {

// "a Git LFS pointer and not the file itself; run git lfs pull", "gzip-compressed; unpack it
// first": the end of a sentence that begins with the file's name and "is". Empty: none of the kinds
// that are known by their first bytes (also: archives, documents of Office programs, PDF, Parquet,
// databases, UTF-16, web pages and XML, GGUF, PyTorch's pickle).
std::string kind_by_first_bytes(std::span<const std::byte> bytes);
std::string kind_by_first_bytes(std::string_view bytes);

// In the same words, of the beginning of a file that is to be text in UTF-8: text in UTF-16 or
// UTF-32 by its byte order mark, or in UTF-16 by the zero half of every letter below 128. Empty: it
// is neither; a text in UTF-8 with a few zeros in it is none.
std::string wide_text_kind(std::string_view bytes);

// Of a file that is to be text: either of the two.
std::string text_file_kind(std::string_view bytes);

}  // namespace qlora::io
