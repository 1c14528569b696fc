#include "quant/formats/exported_weight.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.h"

namespace qlora::quant {

ExportedWeight::ExportedWeight(NamedTensors parts, int64_t out, int64_t in, std::string format,
                               std::function<at::Tensor()> decode)
    : parts_(std::move(parts)),
      out_(out),
      in_(in),
      format_(std::move(format)),
      decode_(std::move(decode)) {}

int64_t ExportedWeight::bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : parts_) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

void ExportedWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                     at::Tensor& out) const {
  check(expert == 0 && 0 <= begin && begin <= end && end <= out_,
        "ExportedWeight: no rows {} to {} of expert {}", begin, end, expert);
  out.copy_(decode_().narrow(0, begin, end - begin));
}

std::vector<at::Tensor*> ExportedWeight::parts() {
  std::vector<at::Tensor*> all;
  for (auto& [name, tensor] : parts_) all.push_back(&tensor);
  return all;
}

}  // namespace qlora::quant
