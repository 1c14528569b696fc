#include "tests/fuzz/target.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::fuzz {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view kMark = "=== ", kNextMark = "\n=== ";
bool is_among(const std::string& name, const std::vector<std::string>& names) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> list;
    const auto add = [&list](const std::vector<Target>& folder) {
      list.insert(list.end(), folder.begin(), folder.end());
    };
    add(io_targets());
    add(data_targets());
    add(archive_targets());
#ifdef QLORA_PARQUET
    add(arrow_targets());
#endif
    add(model_targets());
    add(prequantized_targets());
    add(run_targets());
    return list;
  }();
  return all;
}

const Target& target_named(const std::string& name) {
  for (const Target& target : targets())
    if (target.name == name) return target;
  fail<Error>("there is no fuzz target '{}'", name);
}

void taken_or_refused(const std::function<void()>& read) {
  try {
    read();
  } catch (const FormatError&) {
  } catch (const ConfigError&) {
  }
}

MemoryFile::MemoryFile(std::string_view bytes) : file_(memfd_create("fuzz", MFD_CLOEXEC)) {
  check(file_ >= 0, "no memory file could be made");
  while (!bytes.empty()) {
    const ssize_t written = write(file_, bytes.data(), bytes.size());
    check(written > 0, "the memory file could not be written");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  path_ = fmt::format("/proc/self/fd/{}", file_);
}

MemoryFile::~MemoryFile() { close(file_); }

std::string memory_file_system() {
  const std::string memory = "/dev/shm";
  return access(memory.c_str(), W_OK | X_OK) == 0 ? memory : fs::temp_directory_path().string();
}

std::string join_parts(const Parts& parts) {
  std::string joined;
  for (const auto& [name, bytes] : parts) joined += fmt::format("{}{}\n{}\n", kMark, name, bytes);
  return joined;
}

Parts split_parts(std::string_view bytes) {
  Parts parts;
  std::string name;
  while (true) {
    if (bytes.starts_with(kMark)) {
      const size_t end = std::min(bytes.find('\n'), bytes.size());
      name = bytes.substr(kMark.size(), end - kMark.size());
      bytes.remove_prefix(std::min(end + 1, bytes.size()));
    }
    const size_t next = bytes.find(kNextMark);
    parts[name] = bytes.substr(0, next);
    if (next == std::string_view::npos) break;
    bytes.remove_prefix(next + 1);
  }
  return parts;
}

Parts parts_of_directory(const std::string& directory, const std::vector<std::string>& names) {
  Parts parts;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().lexically_relative(directory).generic_string();
    if (entry.is_regular_file() && (names.empty() || is_among(name, names)))
      parts[name] = test::read_file(entry.path().string());
  }
  return parts;
}

void write_parts(const Parts& parts, const std::vector<std::string>& names,
                 const std::string& directory) {
  fs::create_directories(directory);
  for (const std::string& name : names) {
    const fs::path path = fs::path(directory) / name;
    const auto part = parts.find(name);
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << (part == parts.end() ? "" : part->second);
  }
}

}  // namespace qlora::fuzz
