// What a GGUF file is: llama.cpp keeps adapters, importance matrices and encoders of pictures in
// the same kind of file as models.
#pragma once

#include <string>

#include "io/gguf.h"

namespace qlora::io {

// "GGUF model", "GGUF adapter", ...
std::string gguf_kind(const GgufFile& file);

// FormatError that says what the file is and what to give instead, unless it is a model.
void require_gguf_model(const GgufFile& file);

}  // namespace qlora::io
