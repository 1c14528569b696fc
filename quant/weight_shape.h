// The shape of a frozen weight as its file has it: [out, in], or [experts, out, in] where one
// parameter stacks the experts of a mixture. Every format lies row-major behind it, so that the
// rows of all experts are one matrix [experts * out, in].
#pragma once

#include <cstdint>
#include <vector>

namespace qlora::quant {

struct WeightShape {
  int64_t experts = 1, out = 0, in = 0;
  bool stacked = false;  // three sizes, even where there is one expert

  static WeightShape matrix(int64_t out, int64_t in) { return {1, out, in, false}; }
  // Error that names `op` unless there are two or three sizes, none of them 0.
  static WeightShape of(const std::vector<int64_t>& sizes, const char* op);

  std::vector<int64_t> sizes() const;
  int64_t num_rows() const { return experts * out; }
  int64_t num_elements() const { return num_rows() * in; }

  // Row `begin` of an expert in the matrix of all rows. Error that names `op` unless the weight has
  // the expert, and the expert the rows [begin, end).
  int64_t first_row(int64_t expert, int64_t begin, int64_t end, const char* op) const;
};

}  // namespace qlora::quant
