// Names of what lies for a while beside the file or directory that it stands for:
// "<name>.partial-<random>" of what is in the making, "<name>.before-replacement-<random>" of what
// is being replaced. A program that was killed leaves it there and a later one clears it away, so
// that no name which a user may choose must be taken for one: the random part has more digits than
// a date and a time.
#pragma once

#include <string>
#include <string_view>

namespace qlora::io {

constexpr std::string_view kPartial = ".partial-";
constexpr std::string_view kReplaced = ".before-replacement-";
constexpr size_t kRandomDigits = 16;  // hexadecimal, lower case

// "<path><mark><random>", which no other process uses: process numbers repeat across containers
// and hosts.
std::string name_beside(const std::string& path, std::string_view mark);

// The name that "<name><mark><random>" stands for; empty for other names.
std::string name_stood_for(const std::string& name, std::string_view mark);

}  // namespace qlora::io
