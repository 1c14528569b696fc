// Philox4x32-10 (Salmon et al. 2011) for host and device code: four random words as a pure function
// of (key, counter).
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace qlora {

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxFactor0 = 0xD2511F53u, kPhiloxFactor1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxStep0 = 0x9E3779B9u, kPhiloxStep1 = 0xBB67AE85u;

struct PhiloxWords {
  uint32_t word[4];
};

QLORA_HOST_DEVICE inline PhiloxWords philox_words(uint64_t key, uint64_t counter) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  PhiloxWords x = {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0}};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxFactor0) * x.word[0];
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxFactor1) * x.word[2];
    x = {{static_cast<uint32_t>(p1 >> 32) ^ x.word[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ x.word[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += kPhiloxStep0;
    k1 += kPhiloxStep1;
  }
  return x;
}

// Uniform in [0, 1): 24 random bits, exact in fp32. Four neighbouring indices share one block.
QLORA_HOST_DEVICE inline float philox_uniform(uint64_t key, uint64_t index) {
  return static_cast<float>(philox_words(key, index / 4).word[index % 4] >> 8) *
         5.9604644775390625e-8f;
}

}  // namespace qlora
