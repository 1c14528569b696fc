// The loops of quant/products/float_product_kernels.h for one instruction set
// (base/simd/for_each.h).
#include "base/simd/tile_loops.h"

namespace qlora::simd::QLORA_SIMD {
namespace {
using quant::ElementType;
using quant::cpu::FloatFactor;
using quant::cpu::FloatProduct;
using quant::cpu::FloatTerm;
using quant::cpu::kColumns;
using quant::cpu::kCopiedRows;
using quant::cpu::kDepth;
using quant::cpu::kSumRows;
using quant::cpu::Part;

// Calls visit with the factor's elements from (row, column) on, in their own type.
template <typename Visit>
void with_elements(const FloatFactor& f, int64_t row, int64_t column, const Visit& visit) {
  const int64_t first = row * f.row_stride + column * f.column_stride;
  switch (f.type) {
    case ElementType::kFloat32:
      return visit(static_cast<const float*>(f.data) + first);
    case ElementType::kBFloat16:
      return visit(static_cast<const uint16_t*>(f.data) + first);
    case ElementType::kFloat16:
      return visit(static_cast<const Float16*>(f.data) + first);
  }
}

// Terms [p, p + depth) of columns [column, column + columns): panels one after the other.
void pack_block(const FloatTerm& t, int64_t p, int64_t depth, int64_t column, int64_t columns,
                float* to) {
  const Vector scale = all(t.scale);
  for (int64_t n = 0; n < columns; n += kPanel) {
    const int64_t width = vectors_of(columns - n) * kLanes;
    with_elements(t.b, p, column + n, [&](const auto* from) {
      if (t.b.column_stride == 1)
        pack_rows(from, t.b.row_stride, depth, columns - n, width, scale, to);
      else
        pack_columns(from, t.b.column_stride, depth, columns - n, width, scale, to);
    });
    to += depth * width;
  }
}

// Elements of a, [rows, depth], in fp32 and close together, in the order in which they lie.
template <typename T>
void copy_lines(const T* from, int64_t stride, int64_t lines, int64_t length, float* to) {
  for (int64_t l = 0; l < lines; ++l, from += stride, to += length)
    for (int64_t i = 0; i < length; i += kLanes)
      store_first(load_first(from + i, length - i), to + i, length - i);
}

// Rows that lie a multiple of 4096 bytes apart crowd a few sets of the caches.
bool is_read_in_place(const FloatFactor& a) {
  const int64_t stride = a.column_stride == 1 ? a.row_stride : a.column_stride;
  return a.type == ElementType::kFloat32 && stride % 1024 != 0;
}

Strip strip_of(const FloatTerm& t, int64_t row, int64_t rows, int64_t p, int64_t depth,
               std::vector<float>& room) {
  const bool by_rows = t.a.column_stride == 1;
  if (is_read_in_place(t.a))
    return {static_cast<const float*>(t.a.data) + row * t.a.row_stride + p * t.a.column_stride,
            t.a.row_stride,
            t.a.column_stride,
            nullptr,
            0,
            depth};
  float* copy = quant::cpu::reserve(room, rows * depth + kLanes);
  with_elements(t.a, row, p, [&](const auto* from) {
    if (by_rows)
      copy_lines(from, t.a.row_stride, rows, depth, copy);
    else
      copy_lines(from, t.a.column_stride, depth, rows, copy);
  });
  return {copy, by_rows ? depth : 1, by_rows ? 1 : rows, nullptr, 0, depth};
}

// sums (+)= terms [p, p + depth) of one term.
void add_block(const FloatTerm& t, int64_t p, int64_t depth, const Part& part, bool begun,
               Sums to) {
  quant::cpu::Room& room = quant::cpu::room();
  float* packed = quant::cpu::reserve(room.b, depth * (part.columns + kPanel));
  pack_block(t, p, depth, part.column, part.columns, packed);
  for (int64_t row = 0; row < part.rows; row += kCopiedRows) {
    const int64_t rows = part.rows - row < kCopiedRows ? part.rows - row : kCopiedRows;
    Strip strip = strip_of(t, part.row + row, rows, p, depth, room.a);
    strip.b = packed;
    for (int64_t n = 0; n < part.columns; n += kPanel) {
      const int64_t vectors = vectors_of(part.columns - n);
      strip.b_stride = vectors * kLanes;
      multiply_panel(vectors, strip, rows, begun, {to.data + row * to.stride + n, to.stride});
      strip.b += depth * strip.b_stride;
    }
  }
}

// Sums of a row, onto what is there.
template <typename T>
void finish_row(const float* sums, int64_t count, bool accumulate, const float* onto, T* out) {
  for (int64_t n = 0; n < count; n += kLanes) {
    Vector sum = load(sums + n);
    if (accumulate) sum = add(sum, load_first(out + n, count - n));
    if (onto != nullptr) sum = add(sum, load_first(onto + n, count - n));
    store_first(sum, out + n, count - n);
  }
}

template <typename T>
void finish(const Part& part, Sums from, T* out) {
  const FloatProduct& p = *part.product;
  const int64_t first = part.row * p.row_stride + part.column * p.column_stride;
  for (int64_t r = 0; r < part.rows; ++r) {
    const int64_t at = first + r * p.row_stride;
    const float* sums = from.data + r * from.stride;
    if (p.column_stride == 1) {
      finish_row(sums, part.columns, p.accumulate, p.onto ? p.onto + at : nullptr, out + at);
      continue;
    }
    for (int64_t n = 0; n < part.columns; ++n) {
      const int64_t element = at + n * p.column_stride;
      float sum = sums[n];
      if (p.accumulate) sum += qlora::load(out[element]);
      if (p.onto != nullptr) sum += p.onto[element];
      Vector one = all(sum);  // rounded as vectors are
      store_first(one, out + element, 1);
    }
  }
}

// At most kSumRows rows, about kColumns columns.
void multiply_block(const Part& part) {
  const FloatProduct& p = *part.product;
  const int64_t stride = (part.columns + kPanel - 1) / kPanel * kPanel;
  const Sums sums{quant::cpu::reserve(quant::cpu::room().sums, part.rows * stride), stride};
  bool begun = false;
  for (int i = 0; i < p.num_terms; ++i) {
    const FloatTerm& t = p.terms[i];
    const int64_t blocks = (t.depth + kDepth - 1) / kDepth;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = t.depth * b / blocks, end = t.depth * (b + 1) / blocks;
      add_block(t, begin, end - begin, part, begun, sums);
      begun = true;
    }
  }
  if (p.codes.a != nullptr) {
    quant::cpu::add_codes(part, begun, sums.data, sums.stride);
    begun = true;
  }
  if (!begun)  // a product of no terms
    for (int64_t i = 0; i < part.rows * stride; ++i) sums.data[i] = 0.0f;
  switch (p.type) {
    case ElementType::kFloat32:
      return finish(part, sums, static_cast<float*>(p.out));
    case ElementType::kBFloat16:
      return finish(part, sums, static_cast<uint16_t*>(p.out));
    case ElementType::kFloat16:
      return finish(part, sums, static_cast<Float16*>(p.out));
  }
}

void multiply_part(const Part& part) {
  constexpr int64_t kStep = kColumns / kPanel * kPanel;
  for (int64_t n = 0; n < part.columns; n += kStep)
    for (int64_t row = 0; row < part.rows; row += kSumRows)
      multiply_block({part.product, part.row + row,
                      part.rows - row < kSumRows ? part.rows - row : kSumRows, part.column + n,
                      part.columns - n < kStep ? part.columns - n : kStep});
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
