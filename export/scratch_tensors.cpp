#include "export/scratch_tensors.h"

#include <ATen/ATen.h>

#include <filesystem>

#include "base/progress.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"
#include "io/mapped_file.h"
#include "quant/tensor_file.h"

namespace qlora::exporting {
namespace fs = std::filesystem;

ScratchTensors::~ScratchTensors() {
  if (!file_) return;
  std::error_code ignored;
  fs::remove(path_, ignored);
}

void ScratchTensors::add(const std::string& name, const at::Tensor& stored) {
  if (!file_) file_ = std::make_unique<io::OutputFile>(path_);
  file_->write({static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()});
  headers_.push_back({name, quant::file_dtype(stored.scalar_type()), stored.sizes().vec()});
}

std::vector<std::string> ScratchTensors::move_to(const std::string& path,
                                                 const std::string& purpose) {
  file_->flush();
  io::require_free_space(fs::path(path).parent_path().string(), file_->size(), purpose);
  const auto data = io::MappedFile::open(path_);
  io::SafetensorsWriter writer(path, headers_, kWeightFileMetadata);
  std::vector<std::string> names;
  Progress progress("writing " + purpose, static_cast<int64_t>(headers_.size()), "tensors");
  size_t offset = 0;
  for (const io::TensorHeader& header : headers_) {
    const auto bytes = data->bytes().subspan(offset, io::bytes_of(header));
    writer.write(header.name, bytes);
    io::drop_pages(bytes);
    names.push_back(header.name);
    offset += bytes.size();
    progress.advance();
  }
  writer.finish();
  fs::remove(path_);
  file_.reset();
  headers_.clear();
  return names;
}

}  // namespace qlora::exporting
