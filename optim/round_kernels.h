// Rounding of round.h on raw pointers.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "base/philox.h"

namespace qlora::optim {

// The bits of a fp32 number rounded to bfloat16; `addend` in [0, 2^16). A NaN or infinity, which
// the sum could carry into another number, is cut off alone.
QLORA_HOST_DEVICE inline uint32_t rounded_bits(uint32_t bits, uint32_t addend) {
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return (bits + (finite ? addend : 0u)) & 0xffff0000u;
}

// To nearest, ties to even.
QLORA_HOST_DEVICE inline uint32_t nearest_addend(uint32_t bits) {
  return 0x7fffu + ((bits >> 16) & 1u);
}

// The 16 random bits of a place: eight places share a block of random words.
QLORA_HOST_DEVICE inline uint32_t random_addend(const PhiloxWords& words, int place) {
  return (words.word[place / 2] >> (place % 2 * 16)) & 0xffffu;
}
constexpr int kPlacesPerBlock = 8;

struct RoundArguments {
  float* values;
  int64_t count;
  bool stochastic;
  uint64_t key;  // of the random numbers
};

namespace cpu {
void round_to_bfloat16(const RoundArguments& arguments);
}
namespace cuda {
void round_to_bfloat16(const RoundArguments& arguments, void* stream);
}

}  // namespace qlora::optim
