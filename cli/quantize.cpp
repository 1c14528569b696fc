#include "cli/quantize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/byte_size.h"
#include "base/device.h"
#include "base/error.h"
#include "base/stop.h"
#include "cli/stop_signal.h"
#include "recipes/exports/compare_methods.h"
#include "recipes/exports/quantize_model.h"
#include "recipes/fields/fields.h"
#include "recipes/yaml/dataset_choice.h"

namespace {

using qlora::ConfigError;
using qlora::cli::Command;
using qlora::cli::Option;
using qlora::quant::GptqOrder;
using qlora::recipes::QuantizeOptions;

// An option that only some methods have.
struct MethodOption {
  std::string name;
  Option option;
  std::set<std::string> methods;
  bool of_held_out = false;  // and of the rows of --held-out
};

const std::set<std::string> kFourBit = {"nf4", "fp4"}, kInt8 = {"int8", "int8_weight_only"},
                            kGptq = {"gptq"}, kHqq = {"hqq"}, kGrouped = {"gptq", "hqq"};

struct QuantizeArguments {
  QuantizeOptions options;
  int bits = 4;
  int64_t group_size = 0;
  bool act_order = false, no_reorder = false, asymmetric = false;
  std::string max_memory;
  std::map<std::string, std::string> dataset_keys;  // of --data, as in a recipe: "format", ...
  std::vector<MethodOption> method_options;
  // Of --compare, and what it has no use for.
  std::vector<std::string> compare;
  std::string held_out, report_file;
  std::vector<std::pair<std::string, Option>> only_without_compare;

  // "gptq" of "gptq:3".
  std::vector<std::string> methods() const {
    if (compare.empty()) return {options.quantization.method};
    std::vector<std::string> names;
    for (const std::string& written : compare)
      names.push_back(written.substr(0, written.find(':')));
    return names;
  }

  bool is_given(const std::string& name) const {
    return std::ranges::any_of(method_options, [&](const MethodOption& option) {
      return option.name == name && option.option.is_given();
    });
  }
};

void require_options_of_methods(const QuantizeArguments& arguments) {
  const std::vector<std::string> methods = arguments.methods();
  for (const MethodOption& option : arguments.method_options) {
    const bool has_use =
        std::ranges::any_of(
            methods, [&](const std::string& method) { return option.methods.contains(method); }) ||
        (option.of_held_out && !arguments.held_out.empty());
    if (!option.option.is_given() || has_use) continue;
    if (option.name == "--double-quant" && methods.size() == 1 && methods[0].starts_with("int8"))
      throw ConfigError(
          "--double-quant is of nf4 and fp4; int8 has one scale a row, which is not quantized");
    qlora::fail<ConfigError>(
        "{} is of {}, and the {} {}; leave it out", option.name, fmt::join(option.methods, " and "),
        methods.size() == 1 ? "method is" : "methods are", fmt::join(methods, ", "));
  }
}

// A model is written, or methods are compared.
void require_one_task(const QuantizeArguments& arguments) {
  if (arguments.compare.empty()) {
    if (arguments.options.output.empty())
      throw ConfigError(
          "--output must name the directory to write; to compare methods without writing a model, "
          "name them with --compare");
    for (const auto& [name, value] : {std::pair{"--held-out", &arguments.held_out},
                                      std::pair{"--report-file", &arguments.report_file}})
      if (!value->empty())
        qlora::fail<ConfigError>("{} is of --compare; leave it out, or name methods to compare",
                                 name);
    return;
  }
  for (const auto& [name, option] : arguments.only_without_compare)
    if (option.is_given())
      qlora::fail<ConfigError>(
          "--compare writes no model, and {} means nothing there; leave it out", name);
}

// The options as the methods have them, from how they are written.
QuantizeOptions chosen(const QuantizeArguments& arguments) {
  require_options_of_methods(arguments);
  QuantizeOptions options = arguments.options;
  options.gptq.bits = options.hqq.bits = arguments.bits;
  if (arguments.is_given("--group-size")) {
    const bool whole = arguments.group_size == 0 || arguments.group_size == -1;
    options.gptq.group_size = whole ? -1 : arguments.group_size;
    options.hqq.group_size = whole ? 0 : arguments.group_size;
  }
  options.gptq.symmetric = !arguments.asymmetric;
  if (arguments.act_order && arguments.no_reorder)
    throw ConfigError("--act-order and --no-reorder exclude each other");
  if (arguments.act_order) options.gptq.order = GptqOrder::kActivations;
  if (arguments.no_reorder) options.gptq.order = GptqOrder::kPlain;
  auto& calibration = options.calibration;
  if (!calibration.data.path.empty())
    calibration.data = qlora::recipes::dataset_choice(calibration.data.path, calibration.data,
                                                      arguments.dataset_keys);
  if (!arguments.max_memory.empty()) {
    const auto bytes = qlora::byte_size(arguments.max_memory);
    if (!bytes)
      qlora::fail<ConfigError>(
          "--max-memory must be a size above 0 such as 16GB (units: {}), found '{}'",
          qlora::kSizeUnits, arguments.max_memory);
    calibration.max_memory_bytes = *bytes;
  }
  return options;
}

void add_bitsandbytes_options(const Command& command, QuantizeArguments& arguments) {
  auto& quantization = arguments.options.quantization;
  auto& list = arguments.method_options;
  list.push_back(
      {"--block-size",
       command
           .add_option("--block-size", quantization.block_size, "4 bit: weights that share a scale")
           .with_shown_default(),
       kFourBit});
  list.push_back({"--double-quant",
                  command.add_flag("--double-quant,!--no-double-quant", quantization.double_quant,
                                   "4 bit: quantize the scales too (on unless turned off)"),
                  kFourBit});
  list.push_back({"--threshold",
                  command
                      .add_option("--threshold", quantization.threshold,
                                  "int8: outlier threshold that the files name")
                      .with_shown_default(),
                  kInt8});
}

void add_group_options(const Command& command, QuantizeArguments& arguments) {
  auto& options = arguments.options;
  auto& list = arguments.method_options;
  list.push_back(
      {"--bits",
       command.add_option("--bits", arguments.bits, "gptq: 2, 3, 4 or 8; hqq: 1, 2, 3, 4 or 8")
           .with_shown_default(),
       kGrouped});
  list.push_back({"--group-size",
                  command.add_option("--group-size", arguments.group_size,
                                     "gptq, hqq: weights that share a scale (default: 128 of gptq, "
                                     "64 of hqq); 0: those of a row"),
                  kGrouped});
  list.push_back({"--axis",
                  command
                      .add_option("--axis", options.hqq.axis,
                                  "hqq: groups lie along rows (1) or across them (0)")
                      .with_shown_default(),
                  kHqq});
  list.push_back({"--act-order",
                  command.add_flag("--act-order", arguments.act_order,
                                   "gptq: columns that matter most first, in groups of their own "
                                   "(g_idx); slower to use than the default, which only reorders "
                                   "within and between groups"),
                  kGptq});
  list.push_back({"--no-reorder",
                  command.add_flag("--no-reorder", arguments.no_reorder,
                                   "gptq: columns one after the other, as they are"),
                  kGptq});
  list.push_back({"--static-groups",
                  command.add_flag("--static-groups", options.gptq.static_groups,
                                   "gptq: groups are those of the weight before any rounding"),
                  kGptq});
  list.push_back(
      {"--true-sequential",
       command.add_flag("--true-sequential,!--no-true-sequential", options.gptq.true_sequential,
                        "gptq: a layer is rounded by what it reads when those before it "
                        "in its block are rounded (on unless turned off, which is "
                        "faster)"),
       kGptq});
  list.push_back({"--asymmetric",
                  command.add_flag("--asymmetric", arguments.asymmetric,
                                   "gptq: each group has a zero of its own (gptq_v2)"),
                  kGptq});
  list.push_back({"--damp",
                  command
                      .add_option("--damp", options.gptq.damp,
                                  "gptq: share of the mean diagonal that is added to it")
                      .with_shown_default(),
                  kGptq});
  list.push_back({"--mse",
                  command.add_option("--mse", options.gptq.mse,
                                     "gptq: search ranges with the least sum of |error|^MSE, such "
                                     "as 2.4 (default: ranges that hold all weights)"),
                  kGptq});
}

void add_calibration_options(const Command& command, QuantizeArguments& arguments) {
  auto& calibration = arguments.options.calibration;
  auto& list = arguments.method_options;
  list.push_back({"--data",
                  command.add_option("--data", calibration.data.path,
                                     "gptq: rows to calibrate on, like those of the training"),
                  kGptq});
  for (const auto& field : qlora::recipes::dataset_fields())
    if (field.key != "path")
      list.push_back({qlora::recipes::dataset_option(field.key),
                      command.add_option(qlora::recipes::dataset_option(field.key),
                                         arguments.dataset_keys[field.key],
                                         "Of --data and --held-out, as in a recipe (format: text, "
                                         "if it is left out): " +
                                             field.type),
                      kGptq, true});
  list.push_back({"--samples",
                  command
                      .add_option("--samples", calibration.samples,
                                  "gptq: sequences of --data to calibrate on, at most")
                      .with_shown_default(),
                  kGptq});
  list.push_back({"--sequence-length",
                  command
                      .add_option("--sequence-length", calibration.sequence_length,
                                  "gptq: tokens of each, at most; of --held-out, of a row")
                      .with_shown_default(),
                  kGptq, true});
  list.push_back(
      {"--max-memory",
       command.add_option("--max-memory", arguments.max_memory,
                          "gptq: what the process may take, such as 8GB; the sequences' "
                          "activations lie on disk, beside what is written, where they do not "
                          "fit (default: they may take half of what is free)"),
       kGptq});
}

void add_comparison_options(const Command& command, QuantizeArguments& arguments) {
  command
      .add_option("--compare", arguments.compare,
                  "Instead of writing a model: a table of these methods, such as "
                  "nf4,int8,gptq:4,hqq:3 (the number: bits)")
      .separated_by(',')
      .one_value_each_time();
  command.add_option("--held-out", arguments.held_out,
                     "compare: rows to compare on, of the format of --data (default: a few "
                     "sentences)");
  command.add_option("--report-file", arguments.report_file,
                     "compare: file for the table, too: .json or .md");
}

void quantize(const QuantizeOptions& options) {
  const qlora::ObeyStop obey(qlora::cli::watch_stop_signals());
  const auto report = qlora::recipes::quantize_model(options);
  qlora::cli::print_result(fmt::format(
      "{}written to {}: {:.0f} MB, quantized in {:.1f} s, peak memory {:.0f} MB; read back "
      "and equal, hash {}\n",
      options.report ? report.to_text() : "", options.output,
      static_cast<double>(report.bytes) / 1e6, report.seconds,
      static_cast<double>(qlora::peak_resident_bytes()) / 1e6, report.base_hash));
}

void compare(const QuantizeArguments& arguments) {
  qlora::recipes::CompareOptions options;
  options.quantize = chosen(arguments);
  options.methods = arguments.compare;
  const std::string& file = arguments.report_file;
  if (!arguments.held_out.empty())
    options.held_out = qlora::recipes::dataset_choice(
        arguments.held_out, options.quantize.calibration.data, arguments.dataset_keys);
  if (!file.empty()) {
    qlora::recipes::require_table_file(file);
    options.scratch_directory = std::filesystem::absolute(file).parent_path().string();
  }
  const qlora::ObeyStop obey(qlora::cli::watch_stop_signals());
  const auto table = qlora::recipes::compare_methods(options);
  qlora::cli::print_result(table.to_text());
  if (file.empty()) return;
  qlora::recipes::write_table(table, file);
  qlora::cli::print_result(fmt::format("written to {}\n", file));
}

void run(const QuantizeArguments& arguments) {
  require_one_task(arguments);
  if (arguments.compare.empty())
    quantize(chosen(arguments));
  else
    compare(arguments);
}

}  // namespace

void add_quantize_command(Command app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  QuantizeOptions& options = arguments->options;
  options.quantization.method = "nf4";
  Command command = app.add_subcommand(
      "quantize", "Write a quantized model that transformers and PEFT load, and train it as it is");
  command.add_option("--model", options.model, "Hugging Face directory, .gguf file or hub id")
      .required();
  const Option method =
      command.add_option("--method", options.quantization.method, "nf4, fp4, int8, hqq or gptq")
          .with_shown_default();
  const Option output = command.add_option(
      "--output", options.output, "Directory to write; needed unless methods are compared");
  add_comparison_options(command, *arguments);
  add_bitsandbytes_options(command, *arguments);
  add_group_options(command, *arguments);
  add_calibration_options(command, *arguments);
  command
      .add_option("--skip-modules", options.quantization.skip_modules,
                  "Modules that stay in 16 bit")
      .separated_by(',')
      .with_shown_default();
  command
      .add_option(
          "--dtype", options.dtype,
          "Of what stays unquantized: auto (as the file has it), bfloat16, float16, float32")
      .with_shown_default();
  command.add_option("--device", options.device, "auto, cpu, cuda or cuda:N").with_shown_default();
  command.add_option("--threads", options.threads, "CPU threads; 0: one a core").not_negative();
  const Option report = command.add_flag(
      "--report", options.report,
      "Print and save the error of each layer and the distance from the 16-bit model");
  arguments->only_without_compare = {
      {"--method", method}, {"--output", output}, {"--report", report}};
  command.callback([arguments] { run(*arguments); });
}

void add_dequantize_command(qlora::cli::Command app) {
  struct Arguments {
    std::string model, output, dtype = "auto";
  };
  auto arguments = std::make_shared<Arguments>();
  qlora::cli::Command command = app.add_subcommand(
      "dequantize", "Write a quantized or GGUF model as a directory of plain weights");
  command.add_option("--model", arguments->model, "The quantized model").required();
  command.add_option("--output", arguments->output, "Directory to write").required();
  command
      .add_option("--dtype", arguments->dtype,
                  "auto (as the file has what is not quantized), bfloat16, float16, float32")
      .with_shown_default();
  command.callback([arguments] {
    const qlora::ObeyStop obey(qlora::cli::watch_stop_signals());
    qlora::recipes::dequantize_model(arguments->model, arguments->output, arguments->dtype);
    qlora::cli::print_result(fmt::format("written to {}\n", arguments->output));
  });
}
