#include "trainer/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string_view>

#include <fmt/format.h>

namespace qlora::trainer {
namespace {

// CRC-32C (Castagnoli), reflected polynomial.
uint32_t crc32c(const std::string& bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> entries{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82f63b78u : 0u);
      entries[i] = value;
    }
    return entries;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

uint32_t masked(uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

template <typename T>
std::string little_endian(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// Protocol buffer fields: number << 3 | wire type (0 varint, 1 64-bit, 2 bytes, 5 32-bit).
std::string integer_field(int number, uint64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) + varint(value);
}
std::string double_field(int number, double value) {
  return varint(static_cast<uint64_t>(number) << 3 | 1) + little_endian(value);
}
std::string float_field(int number, float value) {
  return varint(static_cast<uint64_t>(number) << 3 | 5) + little_endian(value);
}
std::string bytes_field(int number, const std::string& bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}

double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::string_view kEvents = "events.out.tfevents.";

// The latest second in the names of such files; 0: there are none.
int64_t newest_second(const std::string& directory) {
  int64_t newest = 0;
  std::error_code status;  // a directory that cannot be read takes no new file either
  std::filesystem::directory_iterator entries(directory, status);
  for (; !status && entries != std::filesystem::directory_iterator(); entries.increment(status)) {
    const std::string name = entries->path().filename().string();
    int64_t second = 0;
    if (name.starts_with(kEvents))
      std::from_chars(name.data() + kEvents.size(), name.data() + name.size(), second);
    newest = std::max(newest, second);
  }
  return newest;
}

// A name that no file has: TensorBoard reads files in the order of their names, so a second start
// within a second, or with a clock that was set back, comes after the first. Process numbers repeat
// in containers.
std::string new_path(const std::string& directory) {
  int64_t second =
      std::max(static_cast<int64_t>(seconds_since_epoch()), newest_second(directory) + 1);
  for (;; ++second) {
    const std::string path = (std::filesystem::path(directory) /
                              fmt::format("{}{}.{}.0.qlora", kEvents, second, getpid()))
                                 .string();
    if (!std::filesystem::exists(path)) return path;
  }
}

}  // namespace

// Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7; Summary: value 1; Value:
// tag 1, simple_value 2, tensor 8, metadata 9; SessionLog: status 1, of which START is 1;
// TensorProto: dtype 1 (DT_STRING 7), tensor_shape 2, string_val 8; SummaryMetadata: plugin_data 1
// (plugin_name 1), data_class 4 (DATA_CLASS_TENSOR 2).
TensorboardLog::TensorboardLog(const std::string& directory, int64_t last_step)
    : file_(new_path(directory), io::AppendFile::Existing::kRefuse) {
  write_record(double_field(1, seconds_since_epoch()) + bytes_field(3, "brain.Event:2"));
  write_record(double_field(1, seconds_since_epoch()) +
               integer_field(2, static_cast<uint64_t>(last_step + 1)) +
               bytes_field(7, integer_field(1, 1)));
}

void TensorboardLog::write(int64_t step,
                           const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += bytes_field(1, bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
  write_summary(step, summary);
}

void TensorboardLog::write_text(int64_t step, const std::string& tag, const std::string& markdown) {
  const std::string metadata = bytes_field(1, bytes_field(1, "text")) + integer_field(4, 2);
  const std::string tensor = integer_field(1, 7) + bytes_field(2, "") + bytes_field(8, markdown);
  write_summary(step, bytes_field(1, bytes_field(1, tag) + bytes_field(8, tensor) +
                                         bytes_field(9, metadata)));
}

void TensorboardLog::write_summary(int64_t step, const std::string& summary) {
  write_record(double_field(1, seconds_since_epoch()) +
               integer_field(2, static_cast<uint64_t>(step)) + bytes_field(5, summary));
}

void TensorboardLog::write_record(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  file_.append(length + little_endian(masked(crc32c(length))) + event +
               little_endian(masked(crc32c(event))));
}

}  // namespace qlora::trainer
