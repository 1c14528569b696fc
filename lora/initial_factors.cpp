#include "lora/initial_factors.h"

#include <ATen/ATen.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"
#include "base/seed.h"

namespace qlora::lora {
namespace {

template <typename Number>
at::Tensor filled(int64_t rows, int64_t columns, const Number& number) {
  at::Tensor tensor = at::empty({rows, columns}, at::kFloat);
  auto* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < rows * columns; ++i) values[i] = number(static_cast<uint64_t>(i));
  return tensor;
}

at::Tensor normal_matrix(int64_t rows, int64_t columns, uint64_t key) {
  return filled(rows, columns, [key](uint64_t i) { return normal(key, i); });
}

Factors orthogonal(int64_t rank, int64_t in, int64_t out, uint64_t key_a, uint64_t key_b) {
  const at::Tensor q =
      std::get<0>(at::linalg_qr(normal_matrix(rank, rank, random_key(key_a, "rotation"))));
  const at::Tensor even = q.slice(0, 0, rank, 2), odd = q.slice(0, 1, rank, 2);
  return {normal_matrix(in, rank / 2, key_a).mm(even).t().contiguous().div_(10.0),
          normal_matrix(out, rank / 2, key_b).mm(odd).div_(10.0)};
}

}  // namespace

void check_init(const std::string& init, int64_t rank) {
  constexpr const char* kNames[] = {"default", "gaussian", "orthogonal", "loftq", "pissa", "olora"};
  if (std::find(std::begin(kNames), std::end(kNames), init) == std::end(kNames))
    fail<ConfigError>("lora.init must be one of {}, found '{}'", fmt::join(kNames, ", "), init);
  if (init == "orthogonal" && rank % 2 != 0) {
    fail<ConfigError>("lora.init: orthogonal needs an even lora.rank, found {}", rank);
  }
}

Factors initial_factors(const std::string& init, int64_t rank, int64_t in, int64_t out,
                        uint64_t key_a, uint64_t key_b) {
  if (init == "orthogonal") return orthogonal(rank, in, out, key_a, key_b);
  const at::Tensor b = at::zeros({out, rank}, at::kFloat);
  if (init == "gaussian") return {normal_matrix(rank, in, key_a).div_(rank), b};
  const float bound = 1.0f / std::sqrt(static_cast<float>(in));
  const auto uniform_in_bounds = [=](uint64_t i) {
    return (2.0f * uniform(key_a, i) - 1.0f) * bound;
  };
  return {filled(rank, in, uniform_in_bounds), b};
}

}  // namespace qlora::lora
