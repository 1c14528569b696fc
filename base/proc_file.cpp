#include "base/proc_file.h"

#include <fstream>
#include <string>

namespace qlora {

int64_t proc_bytes(const std::filesystem::path& file, std::string_view key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(key.size())) * 1024;
  return 0;
}

}  // namespace qlora
