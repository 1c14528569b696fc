// A file that holds one conversation.
#pragma once

#include <string>

#include "data/chat_template.h"

namespace qlora::data {

// A JSON array of messages, whose whole numbers keep their digits. FormatError with line and column
// where it is none; IoError.
Json read_messages(const std::string& path);

}  // namespace qlora::data
