#include "cli/quantize.h"

#include <fmt/format.h>

#include <memory>

#include "base/device.h"
#include "base/error.h"
#include "base/stop.h"
#include "cli/stop_signal.h"
#include "recipes/exports/quantize_model.h"

void add_quantize_command(qlora::cli::Command app) {
  auto options = std::make_shared<qlora::recipes::QuantizeOptions>();
  options->quantization.method = "nf4";
  qlora::cli::Command command = app.add_subcommand(
      "quantize", "Write a quantized model that transformers and PEFT load, and train it as it is");
  command.add_option("--model", options->model, "Hugging Face directory, .gguf file or hub id")
      .required();
  auto& quantization = options->quantization;
  command.add_option("--method", quantization.method, "nf4, fp4 or int8").with_shown_default();
  command.add_option("--output", options->output, "Directory to write").required();
  command.add_option("--block-size", quantization.block_size, "4 bit: weights that share a scale")
      .with_shown_default();
  const qlora::cli::Option double_quant =
      command.add_flag("--double-quant,!--no-double-quant", quantization.double_quant,
                       "4 bit: quantize the scales too (on unless turned off)");
  command
      .add_option("--threshold", quantization.threshold,
                  "int8: outlier threshold that the files name")
      .with_shown_default();
  command.add_option("--skip-modules", quantization.skip_modules, "Modules that stay in 16 bit")
      .separated_by(',')
      .with_shown_default();
  command
      .add_option(
          "--dtype", options->dtype,
          "Of what stays unquantized: auto (as the file has it), bfloat16, float16, float32")
      .with_shown_default();
  command.add_option("--device", options->device, "auto, cpu, cuda or cuda:N").with_shown_default();
  command.add_option("--threads", options->threads, "CPU threads; 0: one a core");
  command.add_flag("--report", options->report,
                   "Print and save the error of each layer and the distance from the 16-bit model");
  command.callback([options, double_quant] {
    if (double_quant.is_given() && options->quantization.method.starts_with("int8"))
      throw qlora::ConfigError(
          "--double-quant is of nf4 and fp4; int8 has one scale a row, which is not quantized");
    const qlora::ObeyStop obey(qlora::cli::watch_stop_signals());
    const auto report = qlora::recipes::quantize_model(*options);
    qlora::cli::print_result(fmt::format(
        "{}written to {}: {:.0f} MB, quantized in {:.1f} s, peak memory {:.0f} MB; read back "
        "and equal, hash {}\n",
        options->report ? report.to_text() : "", options->output,
        static_cast<double>(report.bytes) / 1e6, report.seconds,
        static_cast<double>(qlora::peak_resident_bytes()) / 1e6, report.base_hash));
  });
}

void add_dequantize_command(qlora::cli::Command app) {
  struct Arguments {
    std::string model, output, dtype = "bfloat16";
  };
  auto arguments = std::make_shared<Arguments>();
  qlora::cli::Command command = app.add_subcommand(
      "dequantize", "Write a quantized or GGUF model as a directory of 16-bit weights");
  command.add_option("--model", arguments->model, "The quantized model").required();
  command.add_option("--output", arguments->output, "Directory to write").required();
  command.add_option("--dtype", arguments->dtype, "bfloat16, float16 or float32")
      .with_shown_default();
  command.callback([arguments] {
    const qlora::ObeyStop obey(qlora::cli::watch_stop_signals());
    qlora::recipes::dequantize_model(arguments->model, arguments->output, arguments->dtype);
    qlora::cli::print_result(fmt::format("written to {}\n", arguments->output));
  });
}
