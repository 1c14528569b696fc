#include "data/tokenizer.h"

#include <filesystem>

#include "base/error.h"
#include "data/tokenizers/json_node.h"
#include "data/tokenizers/tokenizer_files.h"
#include "data/tokenizers/tokenizer_json.h"

namespace qlora::data {
namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  const bool dir = fs::is_directory(path);
  TokenizerFiles files;
  if (dir) files = read_tokenizer_files(path);
  return make_json_tokenizer(std::move(files), path);
}

}  // namespace qlora::data
