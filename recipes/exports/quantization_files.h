// What the config.json of a directory says of weights that were quantized as GPTQ or HQQ do, in the
// keys of GPTQModel's QuantizeConfig and of HqqConfig in transformers 4.57.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "export/quantized.h"
#include "quant/gptq/gptq_options.h"
#include "quant/hqq/hqq_quantize.h"
#include "recipes/exports/calibration_rows.h"

namespace qlora::recipes {

// As transformers, GPTQModel and vLLM read it, in config.json and in quantize_config.json. Layers
// of the blocks that stay as they are have an entry in `dynamic`. Of the calibration rows there is
// the name of their file and a hash, never a text.
nlohmann::ordered_json gptq_config_json(const quant::GptqOptions& options,
                                        const exporting::PackedLayers& layers,
                                        const CalibrationFacts& calibration);

// As transformers 4.57 writes it. Layers that stay as they are have their tags in `skip_modules`:
// their names without "model", "layers" and numbers.
nlohmann::ordered_json hqq_config_json(const quant::HqqOptions& options,
                                       const exporting::PackedLayers& layers);

}  // namespace qlora::recipes
