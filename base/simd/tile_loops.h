// The register tile of products in fp32 that kernels write themselves: rows of a, read as they lie,
// meet a panel of columns of b. Included by the loops of such kernels (base/simd/for_each.h), in
// the namespace of each instruction set: no include guard. Each element's terms are added in their
// order, so that instruction sets with a fused multiplication and addition give the same bits.
namespace qlora::simd::QLORA_SIMD {
namespace {

// Vectors of a panel, and rows of a tile by its vectors: its sums fill the registers but those that
// hold a row of the panel and an element of a; no more than 8, whose addresses fit registers, too.
constexpr int kVectors = 3;
constexpr int kPanel = kVectors * kLanes;
template <int kTileVectors>
constexpr int kTileRows = kRegisters == 32 || kTileVectors == 1 ? 8 : 12 / kTileVectors;

// a [rows, depth] and b [depth, one panel]: rows of b are b_stride elements apart.
struct Strip {
  const float* a;
  int64_t row_stride, depth_stride;
  const float* b;
  int64_t b_stride, depth;
};

// [rows, one panel], rows `stride` elements apart.
struct Sums {
  float* data;
  int64_t stride;
};

// acc[i][j] += Σ_p a[i, p] b[p, j]; rows past `rows` read the last one.
template <int kRows, int kTileVectors>
[[gnu::always_inline]] inline void multiply_tile(const Strip& s, int64_t row, int64_t rows,
                                                 Vector (&acc)[kRows][kTileVectors]) {
  const float* a[kRows];
  for (int i = 0; i < kRows; ++i) a[i] = s.a + (row + (i < rows ? i : rows - 1)) * s.row_stride;
  const float* b = s.b;
  for (int64_t p = 0; p < s.depth; ++p, b += s.b_stride) {
    Vector of_b[kTileVectors];
    for (int j = 0; j < kTileVectors; ++j) of_b[j] = load(b + j * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const Vector of_a = all(a[i][p * s.depth_stride]);
      for (int j = 0; j < kTileVectors; ++j) acc[i][j] = multiply_add(of_a, of_b[j], acc[i][j]);
    }
  }
}

// sums (+)= a b, for all rows.
template <int kTileVectors>
[[gnu::noinline]] void multiply_rows(const Strip& s, int64_t rows, bool accumulate, Sums to) {
  constexpr int kRows = kTileRows<kTileVectors>;
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t count = rows - row < kRows ? rows - row : kRows;
    Vector acc[kRows][kTileVectors];
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kTileVectors; ++j)
        acc[i][j] =
            accumulate && i < count ? load(to.data + (row + i) * to.stride + j * kLanes) : zero();
    multiply_tile(s, row, count, acc);
    for (int i = 0; i < kRows; ++i) {
      if (i >= count) break;
      for (int j = 0; j < kTileVectors; ++j)
        store(acc[i][j], to.data + (row + i) * to.stride + j * kLanes);
    }
  }
}

// The same with the panel's number of vectors.
inline void multiply_panel(int64_t vectors, const Strip& s, int64_t rows, bool accumulate,
                           Sums to) {
  if (vectors == 1) return multiply_rows<1>(s, rows, accumulate, to);
  if (vectors == 2) return multiply_rows<2>(s, rows, accumulate, to);
  multiply_rows<3>(s, rows, accumulate, to);
}

// Vectors of the next panel where this many columns are left.
inline int64_t vectors_of(int64_t columns) {
  return columns >= kPanel ? kVectors : (columns + kLanes - 1) / kLanes;
}

// Rows [depth, columns] -> to [depth, width], scaled; zeros behind the last column.
template <typename T>
void pack_rows(const T* from, int64_t stride, int64_t depth, int64_t columns, int64_t width,
               Vector scale, float* to) {
  for (int64_t p = 0; p < depth; ++p, from += stride, to += width)
    for (int64_t n = 0; n < width; n += kLanes)
      store(n < columns ? multiply(load_first(from + n, columns - n), scale) : zero(), to + n);
}

// The same of columns that lie as rows: from [columns, depth].
template <typename T>
void pack_columns(const T* from, int64_t stride, int64_t depth, int64_t columns, int64_t width,
                  Vector scale, float* to) {
  for (int64_t n = 0; n < width; n += kLanes)
    for (int64_t p = 0; p < depth; p += kLanes) {
      Vector square[kLanes];
      for (int i = 0; i < kLanes; ++i)
        square[i] = n + i < columns
                        ? multiply(load_first(from + (n + i) * stride + p, depth - p), scale)
                        : zero();
      transpose(square);
      for (int64_t i = 0; i < kLanes && p + i < depth; ++i)
        store(square[i], to + (p + i) * width + n);
    }
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD
