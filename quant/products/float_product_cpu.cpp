#include "quant/products/float_product_kernels.h"

#include <algorithm>
#include <vector>

#include "base/instruction_set.h"
#include "base/parallel_for.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kDepth = 256;       // terms that a tile takes at a time
constexpr int64_t kColumns = 384;     // of a packed block, about
constexpr int64_t kRowUnit = 48;      // rows that are not divided between threads
constexpr int64_t kCopiedRows = 192;  // of a's that are copied at once
constexpr int64_t kSumRows = 1024;    // whose unfinished sums are kept at once

// Room of one thread that lives until its next product.
struct Room {
  std::vector<float> b, a, sums;
};
Room& room() {
  thread_local Room memory;
  return memory;
}

float* reserve(std::vector<float>& memory, int64_t count) {
  if (static_cast<int64_t>(memory.size()) < count) memory.resize(static_cast<size_t>(count));
  return memory.data();
}

// Rows and columns of a product, which one thread takes.
struct Part {
  const FloatProduct* product;
  int64_t row, rows, column, columns;
};

// The part's product of codes; sums (+)= it.
void add_codes(const Part& part, bool accumulate, float* sums, int64_t stride) {
  const CodesTerm& codes = part.product->codes;
  codes.a->kernel->multiply({.a = codes.a,
                             .row = part.row,
                             .rows = part.rows,
                             .b = {codes.b.codes + part.column * codes.b.stride, codes.b.stride,
                                   codes.b.absmax + part.column},
                             .columns = part.columns,
                             .accumulate = accumulate,
                             .sums = sums,
                             .stride = stride});
}

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/products/float_product_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

// Divides products between threads in items of kRowUnit rows of one panel of columns, and calls
// multiply(part) with a thread's items, as many at once as lie together.
template <typename Multiply>
void for_each_part(int64_t m, std::span<const FloatProduct> products, int64_t panel,
                   const Multiply& multiply) {
  const auto panels_of = [panel](const FloatProduct& p) { return (p.columns + panel - 1) / panel; };
  const int64_t units = (m + kRowUnit - 1) / kRowUnit;
  int64_t panels = 0;
  for (const FloatProduct& p : products) panels += panels_of(p);
  parallel_for(panels * units, 1, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // of a product's panels
    for (const FloatProduct& p : products) {
      const int64_t last = first + panels_of(p);
      for (int64_t item = std::max(begin, first * units), stop = std::min(end, last * units);
           item < stop;) {
        const int64_t at = item / units, unit = item % units;
        // Whole panels together; what is left of one by itself.
        const bool whole = unit == 0 && stop - item >= units;
        const int64_t count = whole ? (stop - item) / units : 1;
        const int64_t next = whole ? item + count * units : std::min(stop, (at + 1) * units);
        const int64_t row = unit * kRowUnit, column = (at - first) * panel;
        const int64_t row_end = whole ? m : std::min(m, row + (next - item) * kRowUnit);
        multiply(Part{&p, row, row_end - row, column, std::min(count * panel, p.columns - column)});
        item = next;
      }
      first = last;
    }
  });
}

}  // namespace

void float_products(int64_t m, std::span<const FloatProduct> products) {
#ifdef __x86_64__
  if (has_avx512())
    return for_each_part(m, products, simd::avx512::kPanel, simd::avx512::multiply_part);
  if (has_avx2()) return for_each_part(m, products, simd::avx2::kPanel, simd::avx2::multiply_part);
#endif
  for_each_part(m, products, simd::baseline::kPanel, simd::baseline::multiply_part);
}

}  // namespace qlora::quant::cpu
