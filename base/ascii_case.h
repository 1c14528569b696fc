#pragma once

#include <string>

namespace qlora {

// With small letters for the capital ones of ASCII; other bytes stay.
inline std::string ascii_lower_case(std::string text) {
  for (char& c : text)
    if ('A' <= c && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

}  // namespace qlora
