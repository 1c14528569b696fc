// A text that begins as another one does, and of which only the rest is kept: the renderings of a
// conversation turn by turn would take the square of its length.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace qlora::data {

// The bytes [begin, end) of a text.
struct TextSpan {
  size_t begin = 0, end = 0;
};

// The first `shared` bytes of a base text, which the holder knows, and `rest` behind them.
struct SharedText {
  size_t shared = 0;
  std::string rest;

  size_t size() const { return shared + rest.size(); }
  std::string over(std::string_view base) const {
    return std::string(base.substr(0, shared)).append(rest);
  }
  // The bytes from `begin` on.
  std::string behind(size_t begin, std::string_view base) const {
    if (begin >= shared) return rest.substr(begin - shared);
    return std::string(base.substr(begin, shared - begin)).append(rest);
  }
};

inline size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

}  // namespace qlora::data
