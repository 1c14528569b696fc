#include "model/packed_layers.h"

#include <algorithm>

#include "model/expert_tensors.h"
#include "quant/formats/rows_of_several.h"

namespace qlora::model {

void PackedLayers::read_config(const io::JsonNode& quantization_config) {
  format_ = quant::make_stored_format(quantization_config);
}

std::vector<std::string> PackedLayers::modules_of(const std::string& module) const {
  if (!format_) return {};
  if (format_->holds(file_, module)) return {module};
  const auto expert = expert_tensor(architecture_, module + ".weight");
  if (!expert) return {};
  const std::vector<std::string> parts = separate_modules(*expert);
  const bool all = std::ranges::all_of(
      parts, [this](const std::string& part) { return format_->holds(file_, part); });
  return all ? parts : std::vector<std::string>();
}

std::string PackedLayers::packing(const std::string& module) const {
  return modules_of(module).empty() ? "" : format_->name();
}

bool PackedLayers::is_part(const std::string& tensor) const {
  if (!format_) return false;
  const size_t dot = tensor.rfind('.');
  return std::ranges::count(format_->parts(), tensor.substr(dot + 1)) > 0 &&
         format_->holds(file_, tensor.substr(0, dot));
}

std::optional<quant::FrozenSize> PackedLayers::size(const std::string& module, int64_t out,
                                                    int64_t in) const {
  const std::vector<std::string> modules = modules_of(module);
  if (modules.empty()) return std::nullopt;
  const auto parts = static_cast<int64_t>(modules.size());
  quant::FrozenSize size =
      format_->size(modules.front(), quant::WeightShape::matrix(out / parts, in));
  size.bytes *= parts;
  size.scale_bytes *= parts;
  return size;
}

std::unique_ptr<quant::FrozenWeight> PackedLayers::read(const std::string& module, int64_t out,
                                                        int64_t in,
                                                        const quant::QuantizationOptions& options,
                                                        at::Device device,
                                                        std::set<std::string>& read) const {
  const std::vector<std::string> modules = modules_of(module);
  if (modules.empty()) return nullptr;
  const auto shape = quant::WeightShape::matrix(out / static_cast<int64_t>(modules.size()), in);
  std::vector<std::unique_ptr<quant::FrozenWeight>> parts;
  for (const std::string& part : modules)
    parts.push_back(format_->read(file_, part, shape, options, device, read));
  if (parts.size() == 1) return std::move(parts.front());
  return std::make_unique<quant::RowsOfSeveral>(std::move(parts));
}

}  // namespace qlora::model
