#include "recipes/run_files/last_save.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

std::string path_in(const std::string& run_dir) { return (fs::path(run_dir) / kLastSave).string(); }

// An empty object if there is none that can be read.
auto read_note(const std::string& run_dir) {
  auto note = nlohmann::json::object();
  const std::string path = path_in(run_dir);
  if (!fs::is_regular_file(path)) return note;
  const auto read = io::json_or_discarded(io::read_bytes(path));
  if (read.is_object()) note = read;
  return note;
}

}  // namespace

void note_last_save(const std::string& run_dir, int64_t step, const std::string& rows) {
  nlohmann::ordered_json note = {{"step", step}};
  if (!rows.empty()) note["rows"] = rows;
  io::write_file_atomically(path_in(run_dir), io::json_text(note) + '\n');
}

std::optional<int64_t> last_save(const std::string& run_dir) {
  const auto note = read_note(run_dir);
  const auto step = note.find("step");
  if (step == note.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

std::optional<std::string> rows_of_last_start(const std::string& run_dir) {
  const auto note = read_note(run_dir);
  const auto rows = note.find("rows");
  if (rows == note.end() || !rows->is_string()) return std::nullopt;
  return rows->get<std::string>();
}

}  // namespace qlora::recipes
