// The program: one subcommand a file, and the only catch, which turns an error's type into the exit
// code: 0 done, 2 the input is wrong, 1 the machine failed, 3 the training diverged, 130
// interrupted.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>

#include "base/cgroup.h"
#include "base/device.h"
#include "base/error.h"
#include "base/instruction_set.h"
#include "base/log.h"
#include "base/out_of_memory.h"
#include "base/parallel_for.h"
#include "base/path_error.h"
#include "base/progress.h"
#include "base/short_waits.h"
#include "base/stop.h"
#include "cli/chat.h"
#include "cli/command.h"
#include "cli/doctor.h"
#include "cli/evaluate.h"
#include "cli/export_model.h"
#include "cli/generate.h"
#include "cli/import.h"
#include "cli/inspect.h"
#include "cli/plan.h"
#include "cli/quantize.h"
#include "cli/recipes.h"
#include "cli/reference.h"
#include "cli/render.h"
#include "cli/report.h"
#include "cli/shell_files.h"
#include "cli/standard_streams.h"
#include "cli/stop_signal.h"
#include "cli/tokenize.h"
#include "cli/train.h"
#include "cli/working_directory.h"
#include "io/live_mappings.h"

namespace {

void add_commands(qlora::cli::Command app) {
  add_train_command(app);
  add_resume_command(app);
  add_plan_command(app);
  add_evaluate_command(app);
  add_generate_command(app);
  add_chat_command(app);
  add_export_command(app);
  add_report_command(app);
  add_recipes_command(app);
  add_import_command(app);
  add_quantize_command(app);
  add_dequantize_command(app);
  add_inspect_command(app);
  add_tokenize_command(app);
  add_render_command(app);
  add_doctor_command(app);
  add_reference_command(app);
  add_completion_command(app);
  add_man_command(app);
}

int failed(const std::exception& error, int code) {
  qlora::log::write_error(error.what());
  return code;
}

int out_of_memory(qlora::MemoryRefusal refusal) {
  refusal.limit = qlora::process_limit();
  qlora::log::write_error(qlora::to_text(refusal, qlora::phase_left_by_exception()));
  return 1;
}

// What a command printed is a result as much as a file that it wrote.
int finish(int code) {
  try {
    qlora::cli::finish_output();
    return code;
  } catch (const qlora::IoError& error) {
    return code == 0 ? failed(error, 1) : code;  // else the reason is told
  }
}

int run(int argc, char** argv) {
  try {
    qlora::hold_libraries_to_instruction_set();
    // Where a command takes no --threads: what OpenMP would take, within the CPU quota.
    qlora::set_num_threads(std::min(qlora::num_threads(), qlora::usable_cores()));
    return qlora::cli::run_command_line(
        "qlora", "Fine-tunes language models with QLoRA: a frozen base in 4 bit, trained adapters.",
        QLORA_VERSION, add_commands, argc, argv);
  } catch (const qlora::cli::Interrupted&) {
    return 130;
  } catch (const qlora::Stopped& stopped) {
    qlora::log::write_as_each_rank(stopped.to_sentence());
    return 130;
  } catch (const qlora::ConfigError& error) {
    return failed(error, 2);
  } catch (const qlora::FormatError& error) {
    return failed(error, 2);
  } catch (const qlora::PathError& error) {
    return failed(error, 2);
  } catch (const std::filesystem::filesystem_error& error) {
    qlora::log::write_error(qlora::sentence_of(error));
    return qlora::is_wrong_path(error.code().value()) ? 2 : 1;
  } catch (const qlora::DivergenceError& error) {
    return failed(error, 3);
  } catch (const std::length_error&) {
    return out_of_memory({});
  } catch (const std::exception& error) {
    if (qlora::cli::is_of_output(error)) return finish(0);
    const auto refusal = qlora::memory_refusal(error.what());
    return refusal ? out_of_memory(*refusal) : failed(error, 1);
  }
}

// oneDNN keeps the code it made for each shape it met: rows of many lengths, or a changing number
// of outlier columns, would collect a thousand of them. It reads this when it is first used.
void bound_kernel_cache() { setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128", /*overwrite=*/0); }

QLORA_SHORT_WAITS

// Without a place that is there neither the program nor, started again, its libraries begin.
[[gnu::used, gnu::section(".preinit_array")]] void (*working_directory)(int, char**, char**) =
    qlora::cli::require_working_directory;

}  // namespace

int main(int argc, char** argv) {
  qlora::cli::open_missing_streams();
  bound_kernel_cache();
  qlora::io::report_lost_mappings();
  qlora::cli::end_without_reader();
  qlora::cli::outlive_file_size_limit();
  return finish(run(argc, argv));
}
