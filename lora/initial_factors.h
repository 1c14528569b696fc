// What an adapter starts from (init_lora_weights of PEFT). Drawn on the CPU, so that every device
// starts alike.
//
//   default     A uniform in [-1/sqrt(in), 1/sqrt(in)) (Kaiming), B zero
//   gaussian    A normal with deviation 1/rank, B zero
//   orthogonal  A = (N Q_even)ᵀ / 10, B = M Q_odd / 10 with N [in, rank/2] and M [out, rank/2]
//               normal and Q the orthogonal factor of a normal [rank, rank] matrix: B A is zero
//               though neither factor is
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace qlora::lora {

struct Factors {
  at::Tensor a, b;  // fp32 [rank, in], [out, rank]
};

// Factors that an initialisation found while the base was loaded, by module.
using GivenFactors = std::map<std::string, Factors>;

// ConfigError that lists the names, or says that orthogonal needs an even rank.
void check_init(const std::string& init, int64_t rank);

// `init`: default, gaussian or orthogonal; every number is a function of the two keys.
Factors initial_factors(const std::string& init, int64_t rank, int64_t in, int64_t out,
                        uint64_t key_a, uint64_t key_b);

}  // namespace qlora::lora
