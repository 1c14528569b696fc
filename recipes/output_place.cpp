#include "recipes/output_place.h"

#include <filesystem>

#include "base/error.h"
#include "base/path_error.h"
#include "io/atomic_write.h"
#include "io/replaceable.h"
#include "recipes/run_files/run_names.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

// The errors of io say what is wrong with a path, not who named it.
template <typename Check>
void as_option(const std::string& option, const Check& check) {
  try {
    check();
  } catch (const ConfigError& error) {
    fail<ConfigError>("{}: {}", option, error.what());
  } catch (const PathError& error) {
    throw PathError(option + ": " + error.what());
  } catch (const IoError& error) {
    fail<IoError>("{}: {}", option, error.what());
  }
}

}  // namespace

void require_output_directory(const std::string& option, const std::string& path) {
  if (path.empty()) fail<ConfigError>("{} must name the directory to write, found ''", option);
  require_no_place_of_a_run(option, path);
  as_option(option, [&] { io::require_free_directory(path); });
}

void require_output_file(const std::string& option, const std::string& path) {
  if (path.empty() || path.ends_with('/'))
    fail<ConfigError>("{} must name the file to write, found '{}'", option, path);
  require_no_place_of_a_run(option, path);
  std::error_code status;
  const fs::path folder = fs::absolute(path).parent_path();
  if (!fs::is_directory(folder, status))
    fail<ConfigError>("{}: there is no folder {}; make it, or name another", option,
                      folder.string());
  as_option(option, [&] { io::require_place(path); });
}

}  // namespace qlora::recipes
