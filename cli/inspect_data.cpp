#include "cli/inspect_data.h"

#include <fmt/format.h>

#include <map>
#include <vector>

#include "data/mask_view.h"

namespace qlora::cli {
namespace {

void print_examples(std::FILE* file, const char* part, const data::Examples& examples,
                    const data::Tokenizer& tokenizer, const InspectDataOptions& options) {
  std::map<int32_t, int64_t> shown;
  for (const data::ExampleView& example : examples) {
    const bool begins_row = example.side != data::Side::kRejected;
    if (options.num_rows >= 0 && (shown[example.source] += begins_row) > options.num_rows) continue;
    if (options.json) {
      fmt::print(file, "{{\"part\":\"{}\",\"example\":{}}}\n", part, data::example_json(example));
    } else {
      fmt::print(file, "\n{} ", part);
      print_example(file, example, tokenizer, options.colour);
    }
  }
}

void print_reports(std::FILE* file, const char* part,
                   const std::vector<data::DatasetReport>& reports, bool json) {
  for (const data::DatasetReport& report : reports) {
    if (json) {
      fmt::print(file, "{{\"part\":\"{}\",\"report\":{}}}\n", part, data::to_json(report));
    } else {
      fmt::print(file, "{} ", part);
      print_report(file, report);
    }
  }
}

}  // namespace

void print_example(std::FILE* file, const data::ExampleView& example,
                   const data::Tokenizer& tokenizer, bool colour) {
  const int64_t trained = example.num_supervised();
  const char* side = example.side == data::Side::kNone     ? ""
                     : example.side == data::Side::kChosen ? " chosen"
                                                           : " rejected";
  fmt::print(file, "dataset {} row {}{}: {} tokens, {} supervised ({:.1f} %)\n{}\n", example.source,
             example.row, side, example.length(), trained,
             100.0 * static_cast<double>(trained) / static_cast<double>(example.length()),
             data::masked_text(example, tokenizer, colour));
}

void print_report(std::FILE* file, const data::DatasetReport& report) {
  fmt::print(file, "{}\n", data::to_text(report));
}

void print_data(std::FILE* file, const data::PreparedData& data, const std::string& mixture,
                const data::Tokenizer& tokenizer, const InspectDataOptions& options) {
  print_reports(file, "train", data.train_reports, options.json);
  print_reports(file, "eval", data.eval_reports, options.json);
  if (!options.json) {
    for (const std::string& note : data.cache_notes) fmt::print(file, "{}\n", note);
    for (const std::string& warning : data.warnings) fmt::print(file, "warning: {}\n", warning);
    if (!mixture.empty()) fmt::print(file, "{}\n", mixture);
  }
  print_examples(file, "train", data.train, tokenizer, options);
  print_examples(file, "eval", data.eval, tokenizer, options);
}

}  // namespace qlora::cli
