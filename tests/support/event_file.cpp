#include "tests/support/event_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/support/temp_dir.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kString = 7;  // tensorflow.DataType DT_STRING

// A field of a message: a number (wire type 0), or bytes (2; of 1 and 5 the 8 or 4 of the number).
struct Field {
  uint64_t number = 0, integer = 0;
  std::string bytes;
};

uint64_t varint(const std::string& message, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0; at < message.size() && shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(message[at++]);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

std::vector<Field> fields_of(const std::string& message) {
  std::vector<Field> fields;
  for (size_t at = 0; at < message.size();) {
    const uint64_t key = varint(message, at);
    Field field{.number = key >> 3, .integer = 0, .bytes = {}};
    const uint64_t type = key & 7;
    if (type == 0) {
      field.integer = varint(message, at);
    } else {
      const uint64_t size = type == 2 ? varint(message, at) : type == 1 ? 8 : 4;
      EXPECT_TRUE(type == 1 || type == 2 || type == 5) << "wire type " << type;
      EXPECT_LE(size, message.size() - at);
      if (size > message.size() - at) break;
      field.bytes = message.substr(at, size);
      at += size;
    }
    fields.push_back(std::move(field));
  }
  return fields;
}

// The last of that number, as readers of protocol buffers take it; an empty one if there is none.
Field field_of(const std::string& message, uint64_t number) {
  Field found;
  for (Field& field : fields_of(message))
    if (field.number == number) found = std::move(field);
  return found;
}

}  // namespace

std::string event_file_in(const std::string& directory) {
  std::vector<std::string> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory))
    if (entry.path().filename().string().starts_with("events.out.tfevents."))
      found.push_back(entry.path().string());
  EXPECT_EQ(found.size(), 1U);
  return found.empty() ? "" : found.front();
}

std::vector<std::string> events_of(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<std::string> events;
  size_t at = 0;
  while (at + 12 <= bytes.size()) {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at, sizeof(length));
    events.push_back(bytes.substr(at + 12, length));
    at += 12 + length + 4;
  }
  EXPECT_EQ(at, bytes.size());
  return events;
}

// Event: step 2, summary 5; Summary: value 1; Value: tag 1, tensor 8, metadata 9; TensorProto:
// dtype 1, string_val 8; SummaryMetadata: plugin_data 1; PluginData: plugin_name 1.
std::vector<EventText> texts_of(const std::string& path) {
  std::vector<EventText> texts;
  for (const std::string& event : events_of(path)) {
    const auto step = static_cast<int64_t>(field_of(event, 2).integer);
    for (const Field& value : fields_of(field_of(event, 5).bytes)) {
      const std::string tensor = field_of(value.bytes, 8).bytes;
      if (value.number != 1 || field_of(tensor, 1).integer != kString) continue;
      const std::string plugin = field_of(field_of(value.bytes, 9).bytes, 1).bytes;
      texts.push_back({step, field_of(value.bytes, 1).bytes, field_of(plugin, 1).bytes,
                       field_of(tensor, 8).bytes});
    }
  }
  return texts;
}

}  // namespace qlora::test
