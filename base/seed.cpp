#include "base/seed.h"

#include <cmath>

#include "base/philox.h"

namespace qlora {
namespace {

// splitmix64's finaliser: every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t random_key(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a over the name
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return mix(mix(seed + 0x9e3779b97f4a7c15ull) ^ hash);
}

uint64_t random_key(uint64_t key, uint64_t number) {
  return mix(key ^ mix(number + 0x9e3779b97f4a7c15ull));
}

float uniform(uint64_t key, uint64_t index) { return philox_uniform(key, index); }

float normal(uint64_t key, uint64_t index) {
  const PhiloxWords words = philox_words(key, index);
  const double u = (words.word[0] + 1.0) * 0x1p-32;  // (0, 1]: the logarithm stays finite
  const double v = words.word[1] * 0x1p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
}

uint64_t uniform_integer(uint64_t key, uint64_t index, uint64_t bound) {
  const PhiloxWords words = philox_words(key, index);
  const uint64_t word = (static_cast<uint64_t>(words.word[1]) << 32) | words.word[0];
  return static_cast<uint64_t>((static_cast<unsigned __int128>(word) * bound) >> 64);
}

}  // namespace qlora
