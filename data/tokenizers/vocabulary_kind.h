// What was given as a tokenizer's vocabulary, where that is no tokenizer.json or sentencepiece
// model.
#pragma once

#include <string>
#include <string_view>

namespace qlora::data {

// FormatError that names `path` and says what the file is and which one to give instead, if `bytes`
// are a Git LFS pointer, an archive or the like, a tiktoken vocabulary (lines of base64 and a rank)
// or a tekken vocabulary (JSON of mistral-common).
void require_known_vocabulary(std::string_view bytes, const std::string& path);

}  // namespace qlora::data
