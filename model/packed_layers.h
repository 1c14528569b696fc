// The linear layers that a Hugging Face directory holds packed in the format of another tool, by
// the names of their modules. An expert's gate_up is put together of two layers where files have
// gate and up apart.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/json.h"
#include "model/architecture.h"
#include "quant/prequantized/stored_format.h"

namespace qlora::model {

class PackedLayers {
 public:
  // Borrows both.
  PackedLayers(const Architecture& architecture, const io::TensorFile& file)
      : architecture_(architecture), file_(file) {}

  // Errors of quant::make_stored_format().
  void read_config(const io::JsonNode& quantization_config);
  // Whether there was a config that names a format.
  bool any() const { return format_ != nullptr; }
  // That of the format; there must be one.
  std::string name() const { return format_->name(); }

  // How the module is packed, by the format's name; empty if it is not.
  std::string packing(const std::string& module) const;
  // Whether a tensor of the file belongs to a packed layer.
  bool is_part(const std::string& tensor) const;
  // What read() would make of a layer of this shape; nothing if it is not packed.
  std::optional<quant::FrozenSize> size(const std::string& module, int64_t out, int64_t in) const;
  // The layer, or null if it is not packed; adds what it read to `read`. Errors of
  // quant::StoredFormat::read().
  std::unique_ptr<quant::FrozenWeight> read(const std::string& module, int64_t out, int64_t in,
                                            const quant::QuantizationOptions& options,
                                            at::Device device, std::set<std::string>& read) const;

 private:
  // The file's packed modules that make this one, one below the other; none if it is not packed.
  std::vector<std::string> modules_of(const std::string& module) const;

  const Architecture& architecture_;
  const io::TensorFile& file_;
  std::unique_ptr<quant::StoredFormat> format_;
};

}  // namespace qlora::model
