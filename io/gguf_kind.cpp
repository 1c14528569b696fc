#include "io/gguf_kind.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace qlora::io {
namespace {

struct Kind {
  const char* type;  // general.type
  const char* key;   // metadata that such a file has, also where it leaves out its type
  const char* name;
  const char* advice;
};

constexpr std::array<Kind, 3> kOthers = {
    {{"adapter", "adapter.type", "adapter",
      "an adapter. Give its base as the model, and the adapter as a directory in PEFT's form with "
      "--adapter or lora.from_adapter; this file is for llama.cpp, beside the base's own: "
      "llama-cli -m BASE.gguf --lora"},
     {"imatrix", "imatrix.chunk_count", "importance matrix",
      "an importance matrix, which llama-quantize takes with --imatrix. Give the model that it was "
      "measured on"},
     {"mmproj", "clip.projector_type", "encoder of pictures or sounds",
      "the encoder of pictures or sounds of a model. Give the file of the model itself, which lies "
      "beside it"}}};

const Kind* other_kind(const GgufFile& file) {
  const std::string type = file.text_or("general.type", "");
  const auto found = std::ranges::find_if(kOthers, [&](const Kind& kind) {
    return type.empty() ? file.has(kind.key) : type == kind.type;
  });
  return found == kOthers.end() ? nullptr : &*found;
}

}  // namespace

std::string gguf_kind(const GgufFile& file) {
  if (const Kind* kind = other_kind(file)) return fmt::format("GGUF {}", kind->name);
  const std::string type = file.text_or("general.type", "model");
  return type == "model" ? "GGUF model" : fmt::format("GGUF file of type '{}'", type);
}

void require_gguf_model(const GgufFile& file) {
  if (const Kind* kind = other_kind(file))
    fail<FormatError>("{} is no model but {}", file.path(), kind->advice);
  if (const std::string type = file.text_or("general.type", "model"); type != "model")
    fail<FormatError>("{}: general.type is '{}'; a model is wanted here", file.path(), type);
}

}  // namespace qlora::io
