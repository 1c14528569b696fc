#include "export/weight_files.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "quant/tensor_file.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

int64_t bytes_of(const WeightPart& part) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(part.dtype));
  for (const int64_t size : part.shape) bytes *= size;
  return bytes;
}

void write_shard(const std::string& path, const std::vector<WeightPart>& parts,
                 Progress& progress) {
  std::vector<io::TensorHeader> headers;
  for (const WeightPart& part : parts)
    headers.push_back({part.name, quant::file_dtype(part.dtype), part.shape});
  io::SafetensorsWriter writer(path, std::move(headers), kWeightFileMetadata);
  for (const WeightPart& part : parts) {
    const at::Tensor value = stored_value(part.name, part.make(), part.dtype);
    writer.write(part.name,
                 {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()});
    progress.advance();
  }
  writer.finish();
}

// In pieces: what at::isfinite() works with takes twice the memory of the tensor.
bool all_finite(const at::Tensor& contiguous) {
  constexpr int64_t kPieceElements = int64_t{1} << 20;
  const at::Tensor flat = contiguous.view({-1});
  for (int64_t first = 0; first < flat.numel(); first += kPieceElements) {
    const at::Tensor piece = flat.narrow(0, first, std::min(kPieceElements, flat.numel() - first));
    if (!at::isfinite(piece).all().item<bool>()) return false;
  }
  return true;
}

}  // namespace

at::Tensor stored_value(const std::string& name, const at::Tensor& value, at::ScalarType dtype) {
  at::Tensor stored = value.to(dtype).cpu().contiguous();
  if (!stored.is_floating_point() || all_finite(stored)) return stored;
  if (dtype == at::kHalf && all_finite(value.cpu().contiguous()))
    fail<Error>("the weight {} is not finite as {}; export with --dtype bfloat16", name,
                c10::toString(dtype));
  fail<DivergenceError>(
      "the weight {} is not finite as {}: the adapter or the base holds values that are not finite "
      "or too large, as after a training that diverged",
      name, c10::toString(dtype));
}

std::string weight_file_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

void write_weight_index(const std::string& directory,
                        const std::vector<std::vector<std::string>>& names, int64_t total_bytes) {
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (size_t i = 0; i < names.size(); ++i)
    for (const std::string& name : names[i]) map[name] = weight_file_name(i, names.size());
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}},
                                        {"weight_map", map}};
  io::write_file_atomically((fs::path(directory) / "model.safetensors.index.json").string(),
                            io::json_text(index, 2) + "\n");
}

void write_weight_files(const std::string& directory, const std::vector<WeightPart>& parts,
                        const std::string& purpose, int64_t shard_bytes) {
  std::vector<std::vector<WeightPart>> shards(1);
  std::vector<std::vector<std::string>> names(1);
  int64_t total = 0, in_shard = 0;
  for (const WeightPart& part : parts) {
    const int64_t bytes = bytes_of(part);
    if (in_shard > 0 && in_shard + bytes > shard_bytes) {
      shards.emplace_back();
      names.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(part);
    names.back().push_back(part.name);
    in_shard += bytes;
    total += bytes;
  }
  io::require_free_space(directory, static_cast<uint64_t>(total), purpose);
  Progress progress("writing " + purpose, static_cast<int64_t>(parts.size()), "tensors");
  for (size_t i = 0; i < shards.size(); ++i)
    write_shard((fs::path(directory) / weight_file_name(i, shards.size())).string(), shards[i],
                progress);
  if (shards.size() > 1) write_weight_index(directory, names, total);
}

}  // namespace qlora::exporting
