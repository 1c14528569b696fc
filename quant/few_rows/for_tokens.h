// Rows of x dealt out to tiles that hold the sums of a few of them in registers.
#pragma once

#include <cstdint>
#include <type_traits>

namespace qlora::quant::cpu {

constexpr int64_t kMaxTokens = 4;  // rows of x that a tile takes at once

// Calls f(t, constant count) for rows [t, t + count) of x until all `tokens` were named.
template <typename F>
void for_tokens(int64_t tokens, const F& f) {
  for (int64_t t = 0; t < tokens; t += kMaxTokens) {
    switch (tokens - t) {
      case 1:
        f(t, std::integral_constant<int, 1>());
        break;
      case 2:
        f(t, std::integral_constant<int, 2>());
        break;
      case 3:
        f(t, std::integral_constant<int, 3>());
        break;
      default:
        f(t, std::integral_constant<int, 4>());
    }
  }
}

}  // namespace qlora::quant::cpu
