#include "export/weight_stream.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/error.h"
#include "io/atomic_write.h"

namespace qlora::exporting {
namespace fs = std::filesystem;

namespace {

std::string scratch_path(const std::string& directory) {
  return (fs::path(directory) / "weights.scratch").string();
}

// Until the number of shards is known.
std::string unnamed_shard(const std::string& directory, size_t index) {
  return (fs::path(directory) / fmt::format("shard-{}.scratch", index)).string();
}

}  // namespace

WeightStream::WeightStream(std::string directory, std::string purpose, int64_t shard_bytes)
    : directory_(std::move(directory)),
      purpose_(std::move(purpose)),
      shard_bytes_(shard_bytes),
      scratch_(scratch_path(directory_)) {}

void WeightStream::add(const std::string& name, const at::Tensor& value, at::ScalarType dtype) {
  const at::Tensor stored = stored_value(name, value, dtype);
  const auto bytes = static_cast<int64_t>(stored.nbytes());
  if (in_shard_ > 0 && in_shard_ + bytes > shard_bytes_) close_shard();
  scratch_.add(name, stored);
  in_shard_ += bytes;
  total_ += bytes;
}

void WeightStream::close_shard() {
  names_.push_back(scratch_.move_to(unnamed_shard(directory_, names_.size()), purpose_));
  in_shard_ = 0;
}

void WeightStream::finish() {
  if (!scratch_.empty()) close_shard();
  for (size_t i = 0; i < names_.size(); ++i)
    io::move(unnamed_shard(directory_, i),
             (fs::path(directory_) / weight_file_name(i, names_.size())).string());
  if (names_.size() > 1) write_weight_index(directory_, names_, total_);
}

}  // namespace qlora::exporting
