#include "base/instruction_set.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <utility>

#include "base/error.h"

namespace qlora {
namespace {

constexpr const char* kVariable = "QLORA_INSTRUCTION_SET";

constexpr std::array<std::pair<InstructionSet, const char*>, 4> kNames{
    {{InstructionSet::kBaseline, "baseline"},
     {InstructionSet::kAvx2, "avx2"},
     {InstructionSet::kAvx512, "avx512"},
     {InstructionSet::kAvx512Bfloat16, "avx512_bf16"}}};

InstructionSet from_environment() {
  const InstructionSet processor = processor_instruction_set();
  const char* wish = std::getenv(kVariable);
  if (wish == nullptr || *wish == '\0') return processor;
  const auto named = instruction_set_named(wish);
  if (!named)
    fail<ConfigError>("{} must be baseline, avx2, avx512 or avx512_bf16, got '{}'", kVariable,
                      wish);
  return std::min(*named, processor);
}

std::atomic<InstructionSet>& in_use() {
  static std::atomic<InstructionSet> set{from_environment()};
  return set;
}

}  // namespace

std::string to_string(InstructionSet set) { return kNames[static_cast<size_t>(set)].second; }

std::optional<InstructionSet> instruction_set_named(const std::string& name) {
  for (const auto& [set, known] : kNames)
    if (name == known) return set;
  return std::nullopt;
}

InstructionSet processor_instruction_set() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c"))
    return InstructionSet::kBaseline;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return InstructionSet::kAvx2;
  return __builtin_cpu_supports("avx512bf16") ? InstructionSet::kAvx512Bfloat16
                                              : InstructionSet::kAvx512;
#else
  return InstructionSet::kBaseline;
#endif
}

InstructionSet instruction_set() { return in_use().load(std::memory_order_relaxed); }

std::string describe_instruction_set() {
  const InstructionSet set = instruction_set(), processor = processor_instruction_set();
  const std::string held = set < processor ? ", held down from " + to_string(processor) : "";
  return to_string(set) + held;
}

bool has_avx512_vnni() {
#ifdef __x86_64__
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool has_avx_vnni() {
#ifdef __x86_64__
  return has_avx2() && __builtin_cpu_supports("avxvnni");
#else
  return false;
#endif
}

bool has_amx_bfloat16() {
#ifdef __x86_64__
  return has_avx512_bfloat16() && __builtin_cpu_supports("amx-bf16");
#else
  return false;
#endif
}

AtMost::AtMost(InstructionSet most) : before_(instruction_set()) {
  in_use() = std::min(before_, most);
}
AtMost::~AtMost() { in_use() = before_; }

void hold_libraries_to_instruction_set() {
  const InstructionSet set = instruction_set();
  if (set == processor_instruction_set()) return;
  const char *onednn = "AVX512_CORE", *mkl = "AVX512", *aten = "avx512";
  if (set == InstructionSet::kAvx2) onednn = "AVX2", mkl = "AVX2", aten = "avx2";
  if (set == InstructionSet::kBaseline) onednn = "SSE41", mkl = "SSE4_2", aten = "default";
  constexpr int kKeep = 0;
  setenv("ONEDNN_MAX_CPU_ISA", onednn, kKeep);
  setenv("MKL_ENABLE_INSTRUCTIONS", mkl, kKeep);
  setenv("ATEN_CPU_CAPABILITY", aten, kKeep);
}

}  // namespace qlora
