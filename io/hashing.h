// XXH3-128 hashes in hexadecimal: they tell damage and mix-ups, not attackers.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qlora::io {

class Hasher {
 public:
  Hasher();
  ~Hasher();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  // 32 hexadecimal digits of everything so far.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_bytes(std::span<const std::byte> bytes);
std::string hash_text(std::string_view text);
// IoError if the file cannot be read.
std::string hash_file(const std::string& path);

}  // namespace qlora::io
