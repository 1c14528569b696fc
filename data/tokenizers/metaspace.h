// Options of Metaspace, which stands both among the pre-tokenizers and among the decoders.
#pragma once

#include <string>

#include "io/json.h"

namespace qlora::data {

// The sign that stands for a blank: U+2581.
inline constexpr char kMetaspace[] = "\xE2\x96\x81";

enum class PrependScheme { kFirst, kNever, kAlways };

struct MetaspaceOptions {
  std::string replacement = kMetaspace;            // one character
  PrependScheme prepend = PrependScheme::kAlways;  // where the sign is put in front of a piece
  bool split = true;                               // cut before each sign
};

// Reads replacement, prepend_scheme and split; the older add_prefix_space: false means "never".
MetaspaceOptions parse_metaspace(const io::JsonNode& node);

}  // namespace qlora::data
