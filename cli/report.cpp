#include "cli/report.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/terminal.h"
#include "cli/page_line.h"
#include "recipes/report/page.h"
#include "recipes/report/run_record.h"

namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string html;
  qlora::recipes::RunRecordOptions options;
};

void run(ReportArguments arguments) {
  if (arguments.html.empty()) arguments.options.num_rows = 0;
  nlohmann::ordered_json record = qlora::recipes::runs_record(arguments.runs, arguments.options);
  if (arguments.html.empty()) {
    fmt::print("{}\nAs a page: qlora report RUN_DIR --html FILE\n",
               qlora::recipes::summary_of(record, qlora::terminal_width(stdout)));
    return;
  }
  record["made"] = qlora::cli::page_line();
  qlora::recipes::write_page(arguments.html, record);
  fmt::print("written to {}; open it in a browser\n", arguments.html);
}

}  // namespace

void add_report_command(qlora::cli::Command app) {
  auto arguments = std::make_shared<ReportArguments>();
  qlora::cli::Command command = app.add_subcommand(
      "report", "What runs did, finished or not: a summary, or a page with their curves");
  command.add_option("RUN_DIR", arguments->runs, "Directories of runs; several are compared")
      .required();
  const qlora::cli::Option html = command.add_option(
      "--html", arguments->html, "File to write: one page for a browser, which needs no network");
  command
      .add_option("--rows", arguments->options.num_rows,
                  "Rows of each dataset that the page shows as they are trained")
      .not_negative()
      .with_shown_default();
  command
      .add_option("--export", arguments->options.exports,
                  "Directory that qlora export wrote of the first run; its verification is shown")
      .one_value_each_time();
  command.callback([arguments, html] {
    if (html.is_given()) qlora::recipes::require_page_file(arguments->html);
    run(*arguments);
  });
}
