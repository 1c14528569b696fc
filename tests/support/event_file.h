// Reads TensorBoard's event files, by the format of TFRecords and of protocol buffers alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::test {

// The one event file in `directory`; a failed expectation where there are more or none.
std::string event_file_in(const std::string& directory);

// The serialized tensorflow.Events of a file. Length and checksum of each must frame it; the
// checksums are not computed.
std::vector<std::string> events_of(const std::string& path);

struct EventText {
  int64_t step = 0;
  std::string tag, plugin;  // "samples/1", "text"
  std::string text;         // the one string of its tensor
};

// The values of a file that hold a tensor of one string, in its order.
std::vector<EventText> texts_of(const std::string& path);

}  // namespace qlora::test
