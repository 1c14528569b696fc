// What a GGUF file says of its own name and of the model that it was made of: "General metadata"
// and "Source metadata" of the format's specification (gguf.md in ggml's repository).
#pragma once

#include <string>

#include "model/gguf_description.h"

namespace qlora::exporting {

// `base`: what the model was made of, a hub id ("org/name" or "org/name@REV") or a path.
// general.name is the id's name or the path's last part, without the revision. Of a hub id
// general.base_model.0 has name, organization, address, and as its version the revision if one is
// named.
model::GgufMetadata gguf_origin(const std::string& base);

}  // namespace qlora::exporting
