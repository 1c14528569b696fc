#include "export/weight_files.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/safetensors.h"
#include "quant/tensor_file.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kShardBytes = 5'000'000'000;

int64_t bytes_of(const WeightPart& part) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(part.dtype));
  for (const int64_t size : part.shape) bytes *= size;
  return bytes;
}

void write_shard(const std::string& path, const std::vector<WeightPart>& parts) {
  std::vector<io::TensorHeader> headers;
  for (const WeightPart& part : parts)
    headers.push_back({part.name, quant::file_dtype(part.dtype), part.shape});
  io::SafetensorsWriter writer(path, std::move(headers), {{"format", "pt"}});
  for (const WeightPart& part : parts) {
    const at::Tensor value = part.make().to(part.dtype).cpu().contiguous();
    check(!value.is_floating_point() || at::isfinite(value).all().item<bool>(),
          "the weight {} is not finite as {}; export with --dtype bfloat16", part.name,
          c10::toString(part.dtype));
    writer.write(part.name,
                 {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()});
  }
  writer.finish();
}

}  // namespace

void write_weight_files(const std::string& directory, const std::vector<WeightPart>& parts,
                        const std::string& purpose) {
  std::vector<std::vector<WeightPart>> shards(1);
  int64_t total = 0, in_shard = 0;
  for (const WeightPart& part : parts) {
    const int64_t bytes = bytes_of(part);
    if (in_shard > 0 && in_shard + bytes > kShardBytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(part);
    in_shard += bytes;
    total += bytes;
  }
  io::require_free_space(directory, static_cast<uint64_t>(total), purpose);
  if (shards.size() == 1) {
    write_shard((fs::path(directory) / "model.safetensors").string(), parts);
    return;
  }
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_shard((fs::path(directory) / name).string(), shards[i]);
    for (const WeightPart& part : shards[i]) map[part.name] = name;
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  io::write_file_atomically((fs::path(directory) / "model.safetensors.index.json").string(),
                            index.dump(2) + "\n");
}

}  // namespace qlora::exporting
