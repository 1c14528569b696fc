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

}  // namespace

void note_last_save(const std::string& run_dir, int64_t step) {
  const nlohmann::ordered_json note = {{"step", step}};
  io::write_file_atomically(path_in(run_dir), io::json_text(note) + '\n');
}

std::optional<int64_t> last_save(const std::string& run_dir) {
  const std::string path = path_in(run_dir);
  if (!fs::is_regular_file(path)) return std::nullopt;
  const auto note = io::json_or_discarded(io::read_bytes(path));
  if (!note.is_object()) return std::nullopt;
  const auto step = note.find("step");
  if (step == note.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

}  // namespace qlora::recipes
