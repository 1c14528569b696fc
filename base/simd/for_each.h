// Builds one algorithm for several instruction sets. A kernel's loops stand once, in a file that is
// written with the names of base/simd/*.h (Vector, kLanes, load, store, multiply_add, ...) in the
// namespace QLORA_SIMD; its .cpp includes everything that the loops need, and then
//
//   #define QLORA_SIMD_LOOPS "quant/products/float_product_loops.h"
//   #include "base/simd/for_each.h"
//
// which includes the loops as simd::baseline, simd::avx2 and simd::avx512. Which of them runs, the
// .cpp asks base/instruction_set.h. The vectors' files say all that differs between instruction
// sets: how many lanes and registers there are, and the few operations. Where QLORA_SIMD_BFLOAT16
// is defined as well, the loops are included once more, as simd::avx512_bfloat16; where
// QLORA_SIMD_VNNI is, as simd::avx_vnni and simd::avx512_vnni.
//
// Debian 12's Google Highway (1.0.3) does the same for more processors, but has no product of bf16
// pairs and none of int8, which the kernels for AVX-512 BF16 and VNNI need; those stand in files of
// their own (base/bfloat16_tile_avx512.h).
//
// No include guard: each inclusion is one kernel.

#include "base/simd/baseline.h"

#define QLORA_SIMD baseline
#include "base/simd/shared.h"
#include QLORA_SIMD_LOOPS
#undef QLORA_SIMD

#ifdef __x86_64__
#include <immintrin.h>

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#include "base/simd/avx2.h"
#define QLORA_SIMD avx2
#include "base/simd/shared.h"
#include QLORA_SIMD_LOOPS
#undef QLORA_SIMD
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#include "base/simd/avx512.h"
#define QLORA_SIMD avx512
#include "base/simd/shared.h"
#include QLORA_SIMD_LOOPS
#undef QLORA_SIMD
#pragma GCC pop_options

#ifdef QLORA_SIMD_BFLOAT16
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#include "base/simd/avx512_bfloat16.h"
#define QLORA_SIMD avx512_bfloat16
#include "base/simd/shared.h"
#include QLORA_SIMD_LOOPS
#undef QLORA_SIMD
#pragma GCC pop_options
#endif

#ifdef QLORA_SIMD_VNNI
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#include "base/simd/avx_vnni.h"
#define QLORA_SIMD avx_vnni
#include "base/simd/shared.h"
#include QLORA_SIMD_LOOPS
#undef QLORA_SIMD
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#include "base/simd/avx512_vnni.h"
#define QLORA_SIMD avx512_vnni
#include "base/simd/shared.h"
#include QLORA_SIMD_LOOPS
#undef QLORA_SIMD
#pragma GCC pop_options
#endif
#endif
