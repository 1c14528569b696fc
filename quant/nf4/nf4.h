// 4-bit block quantization of a frozen weight: NF4, whose codes are the quantiles of a normal
// distribution, and FP4 (Dettmers et al. 2023, QLoRA, section 3). It stands between the 16-bit
// weight in a file and every product of training.
//
//   absmax[b] = max |w| over block b
//   code      = the entry of the table that is nearest to w / absmax[b]
//   w         ~ round(table[code] * absmax[b])
//
// A block is `block_size` consecutive elements of the flat (row-major) weight; the last one may be
// shorter. The tables are in four_bit_tables.h. The product is fp32, rounded once to bf16, fp16 or
// fp32.
//
// Storage is bitsandbytes': elements 2j and 2j+1 share byte j, 2j in the high nibble; an odd count
// is padded with the code of 0. Codes and scales equal those of bitsandbytes' backend for the same
// device byte for byte. What differs between the devices:
// - an all-zero block takes code 7 (NF4) on the CPU and 0 on CUDA; both decode to zeros;
// - on the CPU a short last block is divided by its absmax, which is kept as at least 1e-38; all
//   other blocks are multiplied by the reciprocal;
// - CUDA uses the approximate reciprocal, flushes subnormals, and has bounds between the codes that
//   differ in the last bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "quant/blockwise8/double_quant.h"
#include "quant/few_rows/rows_product.h"
#include "quant/nf4/four_bit_tables.h"

namespace qlora::quant {

struct FourBitLayout {
  FourBitCode code = FourBitCode::kNf4;
  int64_t block_size = 64;  // power of two, 32..4096
};

// A quantized tensor; the tensors share one device and are never written again.
struct FourBitTensor {
  FourBitLayout layout;
  int64_t num_elements = 0;
  at::Tensor packed;  // uint8 [ceil(num_elements / 2)]
  at::Tensor absmax;  // fp32 [blocks]; undefined if the scales are double-quantized
  std::optional<DoubleQuantized> scales;  // instead of absmax

  int64_t num_blocks() const { return (num_elements + layout.block_size - 1) / layout.block_size; }
  int64_t bytes() const;
};

// The 16 values of a code as a new fp32 CPU tensor, in code order: what a checkpoint stores as
// quant_map.
at::Tensor four_bit_table(FourBitCode code);
// Which code a stored quant_map (16 values) is; nullopt if it is neither, bit for bit (the sign of
// zero aside).
std::optional<FourBitCode> four_bit_code(const at::Tensor& quant_map);

// weight: contiguous fp32, bf16 or fp16 of any shape, at least one element. Throws Error naming an
// unusable block size, or the flat index of the first infinity or NaN of `name`.
FourBitTensor quantize_four_bit(const at::Tensor& weight, FourBitLayout layout, bool double_quant,
                                const std::string& name = "the weight");

// Writes elements [begin, end) of the flat weight to `out`: contiguous bf16, fp16 or fp32 with end
// - begin elements. Any range works; ranges that begin on a block boundary (on CUDA: on a multiple
// of 8) are fast. Double-quantized scales are decoded on the way.
void dequantize_range(const FourBitTensor& quantized, int64_t begin, int64_t end, at::Tensor& out);

// The product of few rows of x (quant/few_rows/rows_product.h) with rows [first_row, ...) of the
// weight, taken as rows of x.size(1) elements, a multiple of the block size. Each weight is rounded
// to `rounding` first. The tensors must outlive the product.
std::unique_ptr<RowsProduct> four_bit_rows_product(const FourBitTensor& quantized,
                                                   int64_t first_row, at::ScalarType rounding,
                                                   const at::Tensor& x);

// Throws Error unless dtypes, devices and sizes fit together: for tensors that were put together
// from a file. dequantize_range checks too.
void check_four_bit(const FourBitTensor& quantized);

}  // namespace qlora::quant
