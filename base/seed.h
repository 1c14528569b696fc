// Counter-based randomness: a value is a pure function of (key, index), so that a resumed run,
// another thread count or a recomputed layer draws the same numbers. Keys come from the run's seed
// and a name.
//
// Generator: philox.h.
#pragma once

#include <cstdint>
#include <string_view>

namespace qlora {

// A 64-bit key from the run's seed and what the numbers are for, e.g.
// "model.layers.0.self_attn.q_proj.lora_A".
uint64_t random_key(uint64_t seed, std::string_view name);
// A further key from a key and a number (an epoch, a step).
uint64_t random_key(uint64_t key, uint64_t number);

// Uniform in [0, 1): 24 random bits, exact in fp32.
float uniform(uint64_t key, uint64_t index);
// Standard normal by Box-Muller from the words at `index`.
float normal(uint64_t key, uint64_t index);
// Uniform integer in [0, bound), bound > 0, without modulo bias that matters (64-bit
// multiply-shift).
uint64_t uniform_integer(uint64_t key, uint64_t index, uint64_t bound);

}  // namespace qlora
