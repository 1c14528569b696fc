// Readers of bytes from outside, each as a function that a fuzzer can call. A reader takes what it
// is given or refuses it with FormatError or ConfigError; any other exception, a crash or a hang is
// a fault. The same targets run twice: for a moment among the tests (fuzz_test.cpp), as long as one
// likes under libFuzzer with sanitizers (`make fuzz`).
#pragma once

#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::fuzz {

struct Target {
  std::string name;  // "gguf"
  void (*run)(std::string_view bytes);
  // Inputs that the reader takes: what mutation starts from.
  std::vector<std::string> (*seeds)();
  // Texts worth inserting: keywords and keys of the format.
  std::vector<std::string> words;
};

// So that tests are called by the name.
inline void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

const std::vector<Target>& targets();
// Error if there is none of that name.
const Target& target_named(const std::string& name);

// Calls `read`; FormatError and ConfigError pass in silence, everything else goes on to the caller.
void taken_or_refused(const std::function<void()>& read);

// A file that holds `bytes` and lies in memory; it goes with the object.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int file_ = -1;
  std::string path_;
};

// Where a directory of small files that are written for each input is best made: in memory if the
// system has a file system there, which writes a file in a thirtieth of a disk's time.
std::string memory_file_system();

// Several files in one input: "=== NAME\n" in front of each. The first part may lack its line; its
// name is then empty.
using Parts = std::map<std::string, std::string>;
std::string join_parts(const Parts& parts);
Parts split_parts(std::string_view bytes);
// All regular files below `directory` whose names (paths within it) are among `names`; all of them
// if `names` is empty.
Parts parts_of_directory(const std::string& directory, const std::vector<std::string>& names = {});
// Makes `directory` hold the files `names`, each with its part or, if there is none, empty.
void write_parts(const Parts& parts, const std::vector<std::string>& names,
                 const std::string& directory);

// The targets of one folder of the program.
std::vector<Target> io_targets();
std::vector<Target> data_targets();
std::vector<Target> archive_targets();
std::vector<Target> arrow_targets();  // of a build with QLORA_PARQUET
std::vector<Target> model_targets();
std::vector<Target> prequantized_targets();
std::vector<Target> run_targets();

}  // namespace qlora::fuzz
