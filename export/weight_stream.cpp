#include "export/weight_stream.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/error.h"
#include "base/progress.h"
#include "io/atomic_write.h"
#include "io/mapped_file.h"
#include "quant/tensor_file.h"

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
    : directory_(std::move(directory)), purpose_(std::move(purpose)), shard_bytes_(shard_bytes) {}

WeightStream::~WeightStream() {
  if (!scratch_) return;
  std::error_code ignored;
  fs::remove(scratch_->path(), ignored);
}

void WeightStream::add(const std::string& name, const at::Tensor& value, at::ScalarType dtype) {
  const at::Tensor stored = stored_value(name, value, dtype);
  const auto bytes = static_cast<int64_t>(stored.nbytes());
  if (in_shard_ > 0 && in_shard_ + bytes > shard_bytes_) close_shard();
  if (!scratch_) scratch_ = std::make_unique<io::OutputFile>(scratch_path(directory_));
  scratch_->write({static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()});
  headers_.push_back({name, quant::file_dtype(dtype), stored.sizes().vec()});
  in_shard_ += bytes;
  total_ += bytes;
}

void WeightStream::close_shard() {
  scratch_->flush();
  io::require_free_space(directory_, scratch_->size(), purpose_);
  const auto data = io::MappedFile::open(scratch_->path());
  io::SafetensorsWriter writer(unnamed_shard(directory_, names_.size()), headers_,
                               kWeightFileMetadata);
  names_.emplace_back();
  Progress progress("writing " + purpose_, static_cast<int64_t>(headers_.size()), "tensors");
  size_t offset = 0;
  for (const io::TensorHeader& header : headers_) {
    const auto bytes = data->bytes().subspan(offset, io::bytes_of(header));
    writer.write(header.name, bytes);
    io::drop_pages(bytes);
    names_.back().push_back(header.name);
    offset += bytes.size();
    progress.advance();
  }
  writer.finish();
  fs::remove(scratch_->path());
  scratch_.reset();
  headers_.clear();
  in_shard_ = 0;
}

void WeightStream::finish() {
  if (!headers_.empty()) close_shard();
  for (size_t i = 0; i < names_.size(); ++i)
    io::move(unnamed_shard(directory_, i),
             (fs::path(directory_) / weight_file_name(i, names_.size())).string());
  if (names_.size() > 1) write_weight_index(directory_, names_, total_);
}

}  // namespace qlora::exporting
