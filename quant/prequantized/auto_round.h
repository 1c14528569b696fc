// auto-round (Cheng et al. 2023): rounding of its own, stored in the layout of GPTQ or AWQ, which
// `packing_format` names; `extra_config` has what differs for single layers.
#pragma once

#include <memory>

#include "quant/prequantized/stored_format.h"

namespace qlora::quant {

// packing_format "auto_round:auto_gptq" is read as GPTQ, version 1, "auto_round:auto_awq" as AWQ,
// gemm. FormatError naming the key of others.
std::unique_ptr<StoredFormat> auto_round_format(const io::JsonNode& config);

}  // namespace qlora::quant
