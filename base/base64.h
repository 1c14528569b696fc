// Bytes as text of 64 characters (RFC 4648, section 4), with the padding.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qlora {

std::string to_base64(std::string_view bytes);
// Nothing if the text is not base64.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace qlora
