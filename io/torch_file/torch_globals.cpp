#include "io/torch_file/torch_globals.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace qlora::io {
namespace {

constexpr std::pair<const char*, DType> kStorages[] = {
    {"torch.BoolStorage", DType::kBool},         {"torch.ByteStorage", DType::kU8},
    {"torch.CharStorage", DType::kI8},           {"torch.ShortStorage", DType::kI16},
    {"torch.IntStorage", DType::kI32},           {"torch.LongStorage", DType::kI64},
    {"torch.HalfStorage", DType::kF16},          {"torch.BFloat16Storage", DType::kBF16},
    {"torch.FloatStorage", DType::kF32},         {"torch.DoubleStorage", DType::kF64},
    {"torch.storage.UntypedStorage", DType::kU8}};

constexpr std::pair<const char*, DType> kTypes[] = {{"torch.bool", DType::kBool},
                                                    {"torch.uint8", DType::kU8},
                                                    {"torch.int8", DType::kI8},
                                                    {"torch.int16", DType::kI16},
                                                    {"torch.uint16", DType::kU16},
                                                    {"torch.int32", DType::kI32},
                                                    {"torch.uint32", DType::kU32},
                                                    {"torch.int64", DType::kI64},
                                                    {"torch.uint64", DType::kU64},
                                                    {"torch.float16", DType::kF16},
                                                    {"torch.bfloat16", DType::kBF16},
                                                    {"torch.float32", DType::kF32},
                                                    {"torch.float64", DType::kF64},
                                                    {"torch.float8_e4m3fn", DType::kF8_E4M3},
                                                    {"torch.float8_e5m2", DType::kF8_E5M2},
                                                    {"torch.float8_e8m0fnu", DType::kF8_E8M0}};

constexpr const char* kOthers[] = {
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.Size",
    "torch.device",
    "_codecs.encode",  // bytes in protocol 2
    // types of no tensor that this program knows
    "torch.float8_e4m3fnuz", "torch.float8_e5m2fnuz", "torch.complex32", "torch.complex64",
    "torch.complex128"};

template <size_t count>
std::optional<DType> found_in(const std::pair<const char*, DType> (&table)[count],
                              const std::string& name) {
  const auto found = std::ranges::find(table, name, &std::pair<const char*, DType>::first);
  return found == std::end(table) ? std::nullopt : std::optional(found->second);
}

}  // namespace

bool is_torch_global(const std::string& name) {
  return storage_dtype(name) || torch_dtype(name) ||
         std::ranges::find(kOthers, name) != std::end(kOthers);
}

std::optional<DType> storage_dtype(const std::string& name) { return found_in(kStorages, name); }
std::optional<DType> torch_dtype(const std::string& name) { return found_in(kTypes, name); }

}  // namespace qlora::io
