// Writes a model of made weights (model/made_weights.h), quantized in bitsandbytes' layout or not,
// as a directory, a block at a time: bases of any size and family for bench/offload.sh and for
// measuring what a base takes, on machines that could not hold them.
//
//   build/bin/made_base --config 7b/config.json --tokenizer models/SmolLM2-135M --output base
//   build/bin/made_base --config xl/config.json --tokenizer gpt2 --output xl --dtype float32
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "base/device.h"
#include "bench/made_model.h"
#include "data/tokenizer.h"
#include "export/quantized.h"
#include "io/atomic_write.h"
#include "model/load.h"
#include "model/made_weights.h"

namespace qlora::bench {
namespace {
namespace fs = std::filesystem;

struct Wish {
  std::string config, tokenizer, output, method = "nf4", dtype = "bfloat16";
};

void write_base(const Wish& wish) {
  const model::Architecture architecture = shape_named(wish.config);
  const auto tokenizer = data::load_tokenizer(wish.tokenizer);
  const auto source = model::made_weights(architecture);
  quant::QuantizationOptions quantization;
  quantization.method = wish.method;
  model::ModelOptions options;
  options.dtype = wish.dtype;
  const at::ScalarType dtype = model::dtype_from_string(wish.dtype, "--dtype");
  io::AtomicDirectory target(wish.output);
  exporting::QuantizedStream stream(target.path(), *source,
                                    exporting::bitsandbytes_config(quantization, dtype), dtype);
  model::stream_model(*source, options, quantization, at::kCPU, {},
                      [&](const model::StreamedPart& part) { stream.add(part); });
  const bool is_file = wish.config.ends_with(".json");
  stream.finish(*tokenizer, is_file ? fs::path(wish.config).parent_path().string() : "");
  target.commit();
  fmt::print("{}: peak memory {:.0f} MB\n", wish.output,
             static_cast<double>(peak_resident_bytes()) / 1e6);
}

}  // namespace
}  // namespace qlora::bench

int main(int argc, char** argv) {
  CLI::App app("A base of made weights");
  qlora::bench::Wish wish;
  app.add_option("--config", wish.config, "a config.json, or a shape as of bench_train_step")
      ->required();
  app.add_option("--tokenizer", wish.tokenizer, "directory or .gguf file that has one")->required();
  app.add_option("--output", wish.output, "directory to write")->required();
  app.add_option("--method", wish.method, "nf4, fp4, int8 or none");
  app.add_option("--dtype", wish.dtype, "of what is not quantized: bfloat16, float16 or float32");
  CLI11_PARSE(app, argc, argv);
  try {
    qlora::bench::write_base(wish);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}
