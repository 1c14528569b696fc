#include "data/messages_file.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/exact_json.h"

namespace qlora::data {

Json read_messages(const std::string& path) {
  Json messages = read_exact_json(path, "a JSON array of messages");
  if (!messages.is_array())
    fail<FormatError>("{} must be a JSON array of messages, found {}", path, messages.type_name());
  return messages;
}

}  // namespace qlora::data
