#include "recipes/exports/compare_methods.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stop.h"
#include "base/stopwatch.h"
#include "export/verify.h"
#include "quant/prequantized/read_only_formats.h"
#include "recipes/exports/grouped_export.h"
#include "recipes/exports/quantize_steps.h"
#include "recipes/exports/sample_rows.h"
#include "trainer/evaluate.h"

namespace qlora::recipes {
namespace {

constexpr int64_t kLogitBytes = int64_t{1} << 30;
constexpr const char* kMethods = "nf4, fp4, int8, int8_weight_only, gptq[:BITS] and hqq[:BITS]";

// Of "gptq:3" "gptq".
std::string method_of(const std::string& written) { return written.substr(0, written.find(':')); }

bool is_calibrated(const std::string& written) { return method_of(written) == "gptq"; }

// Methods of a kind take about as long as each other.
std::string kind_of(const std::string& written) {
  const std::string method = method_of(written);
  return method == "gptq" || method == "hqq" ? method : "nf4, fp4 or int8";
}

// Of "gptq:3" 3, of "gptq" `otherwise`.
int bits_of(const std::string& written, int otherwise) {
  const size_t colon = written.find(':');
  if (colon == std::string::npos) return otherwise;
  int bits = 0;
  const char *begin = written.data() + colon + 1, *end = written.data() + written.size();
  const auto [rest, error] = std::from_chars(begin, end, bits);
  if (error != std::errc() || rest != end)
    fail<ConfigError>("--compare: behind the colon of '{}' must stand a number of bits", written);
  return bits;
}

// What `qlora quantize` is told for this method alone.
QuantizeOptions options_of(const std::string& written, const QuantizeOptions& common) {
  QuantizeOptions options = common;
  const std::string method = method_of(written);
  options.quantization.method = method;
  options.report = true;
  const std::set<std::string> known = {"nf4", "fp4", "int8", "int8_weight_only", "gptq", "hqq"};
  if (const quant::ReadOnlyFormat* format = quant::find_read_only_format(method))
    fail<ConfigError>("--compare {}: {}", written, format->sentence());
  if (!known.contains(method))
    fail<ConfigError>("--compare takes {}, separated by commas; found '{}'", kMethods, written);
  if (method == "gptq") {
    options.gptq.bits = bits_of(written, options.gptq.bits);
  } else if (method == "hqq") {
    options.hqq.bits = bits_of(written, options.hqq.bits);
  } else if (written != method) {
    fail<ConfigError>("--compare: {} has no bits to choose; leave '{}' out", method,
                      written.substr(method.size()));
  }
  return options;
}

std::string settings_of(const QuantizeOptions& options) {
  if (options.quantization.method == "gptq") return options.gptq.to_text();
  if (options.quantization.method == "hqq") return options.hqq.to_text();
  return options.quantization.to_text();
}

int64_t bytes_of(const model::CausalLm& model) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : model.frozen_state())
    bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

// Layers that were quantized for a file of another tool as products take them.
std::unique_ptr<quant::FrozenWeight> usable(std::unique_ptr<quant::FrozenWeight> weight,
                                            at::ScalarType dtype, at::Device device) {
  if (weight->traits().kind == quant::WeightKind::kStored) return weight;
  at::Tensor values = at::empty({weight->out_features(), weight->in_features()}, at::kFloat);
  weight->dequantize_rows(0, 0, weight->out_features(), values);
  return std::make_unique<quant::DenseWeight>(values.to(device, dtype).contiguous());
}

// Makes and measures quantized models of one original.
class Comparison {
 public:
  explicit Comparison(const CompareOptions& options)
      : options_(options), model_(open_unquantized(options.quantize)) {
    table_.model = options.quantize.model;
    dtype_ = model::dtype_from_string(model_.dtype, "--dtype");
    read_rows();
  }

  MethodTable run() {
    measure_original();
    for (size_t i = 0; i < options_.methods.size(); ++i) {
      if (stop_wanted())
        throw Stopped{"comparing methods", static_cast<int64_t>(i), std::ssize(options_.methods),
                      "methods"};
      const Stopwatch watch;
      table_.rows.push_back(measured(options_.methods[i]));
      seconds_of_[kind_of(options_.methods[i])] = watch.seconds();
      tell(table_.rows.back(), i + 1);
    }
    return std::move(table_);
  }

 private:
  void read_rows() {
    if (std::ranges::any_of(options_.methods, is_calibrated))
      calibration_ = read_calibration_rows_of(model_, options_.quantize.calibration);
    table_.calibration = calibration_.facts;
    if (options_.held_out.path.empty()) return;
    table_.held_out = std::filesystem::path(options_.held_out.path).filename().string();
    held_out_ =
        read_held_out_rows(options_.held_out, options_.quantize.calibration.sequence_length,
                           *model_.tokenizer, model::open_weights(model_.path)->architecture());
  }

  void measure_original() {
    const Stopwatch watch;
    quant::QuantizationOptions none;
    none.method = "none";
    const auto original = load_compared(model_.path, model_.dtype, none, model_.device);
    const double seconds = watch.seconds();
    if (held_out_.empty())
      reference_ =
          std::make_unique<exporting::Reference>(*original, sample_sentences(*model_.tokenizer));
    else
      reference_ = std::make_unique<exporting::Reference>(*original, held_out_, kLogitBytes);
    MethodRow row;
    row.method = model_.dtype;
    row.bits = 8.0 * static_cast<double>(c10::elementSize(dtype_));
    row.bytes = bytes_of(*original);
    row.seconds = seconds;
    compare(*original, row);
    table_.rows.push_back(row);
  }

  MethodRow measured(const std::string& written) {
    QuantizeOptions options = options_of(written, options_.quantize);
    options.dtype = model_.dtype;
    MethodRow row;
    row.method = written;
    row.settings = settings_of(options);
    QuantizationReport report;
    const Stopwatch watch;
    const auto quantized = quantized_model(options, report);
    row.seconds = watch.seconds();
    take_report(report, row);
    compare(*quantized, row);
    return row;
  }

  std::unique_ptr<model::CausalLm> quantized_model(const QuantizeOptions& options,
                                                   QuantizationReport& report) {
    if (options.quantization.method == "gptq") return gptq_model(options, report);
    if (options.quantization.method != "hqq")
      return load_compared(model_.path, model_.dtype, options.quantization, model_.device,
                           bitsandbytes_maker(options, report));
    const model::WeightMaker make = hqq_maker(options, report);
    return load_compared(model_.path, model_.dtype, unquantized(options), model_.device,
                         [&](const std::string& module, const at::Tensor& weight) {
                           return usable(make(module, weight), dtype_, model_.device);
                         });
  }

  std::unique_ptr<model::CausalLm> gptq_model(const QuantizeOptions& options,
                                              QuantizationReport& report) {
    const auto source = model::open_weights(model_.path);
    model::ModelOptions reading;
    reading.path = model_.path;
    reading.dtype = model_.dtype;
    auto model = model::load_without_blocks(*source, reading, model_.device,
                                            compared_compute_dtype(model_.dtype));
    size_t layer = 0;
    stream_gptq(model_.path, calibration_, options, model_.device, options_.scratch_directory,
                report, [&](const model::StreamedPart& part) {
                  if (part.block == nullptr) return;
                  for (lora::LinearGroup* group : part.block->groups())
                    for (lora::LoraLinear& linear : group->layers())
                      linear.base = usable(std::move(linear.base), dtype_, model_.device);
                  model->layers.at(layer++) = std::move(*part.block);
                });
    return model;
  }

  // What lies beside the quantized layers is the original's.
  void take_report(const QuantizationReport& report, MethodRow& row) const {
    int64_t weights = 0, bytes = 0;
    for (const LayerError& layer : report.layers) {
      weights += layer.weights;
      bytes += layer.bytes;
    }
    if (weights == 0)
      fail<ConfigError>(
          "--compare: {} quantizes no layer of this model; is all of it among "
          "--skip-modules?",
          row.method);
    row.errors = report.errors();
    row.bits = 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
    row.bytes = table_.rows.front().bytes + bytes -
                weights * static_cast<int64_t>(c10::elementSize(dtype_));
  }

  void compare(model::CausalLm& model, MethodRow& row) {
    const exporting::Agreement agreement = reference_->compare(model);
    row.kl = agreement.kl_mean;
    row.top1 = agreement.top1;
    table_.compared_tokens = agreement.tokens;
    if (held_out_.empty()) {
      row.loss = agreement.loss;
      table_.predicted_tokens = agreement.predicted_tokens;
      return;
    }
    const trainer::Evaluation found =
        trainer::evaluate_loss(model, held_out_, /*adapters_enabled=*/false);
    row.loss = found.loss;
    table_.predicted_tokens = found.supervised_tokens;
  }

  // After `done` methods, as far as one of each kind has been measured.
  std::string time_left(size_t done) const {
    double seconds = 0;
    std::set<std::string> unknown;
    for (size_t i = done; i < options_.methods.size(); ++i) {
      const std::string kind = kind_of(options_.methods[i]);
      const auto measured = seconds_of_.find(kind);
      if (measured == seconds_of_.end())
        unknown.insert(kind);
      else
        seconds += measured->second;
    }
    std::string text = seconds > 0 ? fmt::format("; about {} left", clock_text(seconds)) : "";
    if (!unknown.empty())
      text += fmt::format("{} what {} will take", text.empty() ? "; left is" : ", and",
                          fmt::join(unknown, " and "));
    return text;
  }

  void tell(const MethodRow& row, size_t done) const {
    log::info(
        "{} ({} of {}): {:.2f} bits a weight, relative error {:.5f}, KL {:.5f}, top-1 agreement "
        "{:.2f} %, loss {:.4f}{}",
        row.method, done, options_.methods.size(), row.bits, row.errors.mean, row.kl,
        100 * row.top1, row.loss, time_left(done));
  }

  const CompareOptions& options_;
  const UnquantizedModel model_;
  at::ScalarType dtype_ = at::kBFloat16;
  CalibrationRows calibration_;
  std::vector<data::Example> held_out_;
  std::unique_ptr<exporting::Reference> reference_;
  std::map<std::string, double> seconds_of_;  // of the last one of each kind
  MethodTable table_;
};

void require_rows(const CompareOptions& options) {
  if (!options.quantize.calibration.data.path.empty()) return;
  std::vector<std::string> named;
  std::ranges::copy_if(options.methods, std::back_inserter(named), is_calibrated);
  if (!named.empty())
    fail<ConfigError>(
        "--compare: {} must be calibrated on rows like those that the model will see: give some "
        "hundred with --data FILE (--format says what they are; text, if it is left out), or leave "
        "{} out",
        fmt::join(named, ", "), named.size() == 1 ? "it" : "them");
}

}  // namespace

void CompareOptions::validate() const {
  if (methods.empty())
    fail<ConfigError>("--compare must name methods of {}, separated by commas", kMethods);
  std::set<std::string> seen;
  for (const std::string& written : methods) {
    options_of(written, quantize);
    if (!seen.insert(written).second) fail<ConfigError>("--compare names {} twice", written);
  }
  require_rows(*this);
  for (const std::string& written : methods) options_of(written, quantize).validate();
}

MethodTable compare_methods(const CompareOptions& options) {
  options.validate();
  return Comparison(options).run();
}

}  // namespace qlora::recipes
