// The vector instructions that kernels use: those of the processor, or fewer where that is wished
// for. Every chooser between kernels asks here, and nowhere else.
#pragma once

#include <optional>
#include <string>

namespace qlora {

// Each has those before it.
enum class InstructionSet {
  kBaseline,        // what every x86-64 processor has
  kAvx2,            // AVX2, FMA, F16C
  kAvx512,          // AVX-512 F, BW, DQ, VL
  kAvx512Bfloat16,  // products of bf16 pairs
};

// "baseline", "avx2", "avx512", "avx512_bf16"
std::string to_string(InstructionSet set);
std::optional<InstructionSet> instruction_set_named(const std::string& name);

// What the processor has.
InstructionSet processor_instruction_set();

// What is in use: the processor's, or less if the environment variable QLORA_INSTRUCTION_SET names
// less. ConfigError if it names something unknown.
InstructionSet instruction_set();
// "avx2", or where less than the processor's is in use "avx2, held down from avx512_bf16".
std::string describe_instruction_set();
inline bool has_avx2() { return instruction_set() >= InstructionSet::kAvx2; }
inline bool has_avx512() { return instruction_set() >= InstructionSet::kAvx512; }
inline bool has_avx512_bfloat16() { return instruction_set() >= InstructionSet::kAvx512Bfloat16; }
// Products of int8 in vectors of AVX-512 (VNNI).
bool has_avx512_vnni();
// The same in vectors of AVX2 (AVX-VNNI).
bool has_avx_vnni();
// Tiles of AMX for bf16, with which oneDNN multiplies several times faster than vectors can.
bool has_amx_bfloat16();

// While it lives, no more than `most` is used: for tests of every kernel on one machine, and for
// measurements. Not while another thread runs kernels.
class AtMost {
 public:
  explicit AtMost(InstructionSet most);
  ~AtMost();
  AtMost(const AtMost&) = delete;
  AtMost& operator=(const AtMost&) = delete;

 private:
  InstructionSet before_;
};

// Holds the libraries (oneDNN, MKL, ATen) to the instruction set in use as well, by the variables
// they read when they are first used; a user's own variables stay. To be called first in main().
void hold_libraries_to_instruction_set();

}  // namespace qlora
