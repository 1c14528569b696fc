#include "tests/fuzz/mutation.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace qlora::fuzz {
namespace {

size_t below(size_t count, std::mt19937_64& random) { return count == 0 ? 0 : random() % count; }

// A piece of `bytes`: mostly short, seldom up to all of it.
std::pair<size_t, size_t> piece(const std::string& bytes, std::mt19937_64& random) {
  const size_t begin = below(bytes.size(), random);
  const size_t longest = bytes.size() - begin;
  return {begin, std::min(longest, 1 + below(below(4, random) == 0 ? longest : 16, random))};
}

// A run of digits becomes a number that lies at some limit.
void replace_number(std::string& bytes, std::mt19937_64& random) {
  constexpr std::array kNumbers = {"0",
                                   "-1",
                                   "1",
                                   "255",
                                   "65536",
                                   "2147483648",
                                   "4294967295",
                                   "9223372036854775807",
                                   "18446744073709551616",
                                   "1e39",
                                   "1e999",
                                   "0.5",
                                   "null"};
  const size_t from = below(bytes.size(), random);
  const size_t begin = std::min(bytes.find_first_of("0123456789", from), bytes.size());
  size_t end = begin;
  while (end < bytes.size() && std::isdigit(static_cast<unsigned char>(bytes[end])) != 0) ++end;
  bytes.replace(begin, end - begin, kNumbers[below(kNumbers.size(), random)]);
}

void change(std::string& bytes, const std::string& other, const std::vector<std::string>& words,
            std::mt19937_64& random) {
  const auto [begin, length] = piece(bytes, random);
  switch (below(9, random)) {
    case 0:
      if (!bytes.empty()) bytes[begin] = static_cast<char>(bytes[begin] ^ (1 << below(8, random)));
      break;
    case 1:
      if (!bytes.empty()) bytes[begin] = static_cast<char>(below(256, random));
      break;
    case 2:
      bytes.erase(begin, length);
      break;
    case 3:
      bytes.insert(begin, bytes.substr(begin, length));
      break;
    case 4: {
      const std::string moved = bytes.substr(begin, length);
      bytes.erase(begin, length);
      bytes.insert(below(bytes.size() + 1, random), moved);
      break;
    }
    case 5:
      replace_number(bytes, random);
      break;
    case 6:
      if (!words.empty()) bytes.insert(begin, words[below(words.size(), random)]);
      break;
    case 7: {
      const auto [from, taken] = piece(other, random);
      bytes.replace(begin, length, other, from, taken);
      break;
    }
    default:
      bytes.resize(begin);
  }
}

}  // namespace

std::string mutated(std::string bytes, const std::string& other,
                    const std::vector<std::string>& words, std::mt19937_64& random) {
  for (size_t changes = 1 + below(4, random); changes > 0; --changes)
    change(bytes, other, words, random);
  return bytes;
}

}  // namespace qlora::fuzz
