// Files as torch.save writes them, piece by piece, so that tests can write wrong ones, too.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace qlora::test {

// The lowest bytes of a number, the lowest first.
inline std::string little_endian(uint64_t number, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>((number >> (8 * i)) & 0xff);
  return text;
}

// Pieces of a pickle of protocol 2.
namespace pickle {

inline const std::string kNone = "N", kTrue = "\x88", kFalse = "\x89";

inline std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}
inline std::string text(const std::string& value) {
  return joined({"X", little_endian(value.size(), 4), value});
}
inline std::string integer(int64_t value) {
  return joined({"\x8a\x08", little_endian(static_cast<uint64_t>(value), 8)});
}
inline std::string tuple(const std::vector<std::string>& items) {
  return joined({"(", joined(items), "t"});
}
inline std::string list(const std::vector<std::string>& items) {
  return joined({"](", joined(items), "e"});
}
inline std::string integers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(integer(value));
  return tuple(items);
}
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string call(const std::string& function, const std::vector<std::string>& arguments) {
  return function + tuple(arguments) + "R";
}
inline std::string ordered_dict() { return global("collections", "OrderedDict") + ")R"; }

using Items = std::vector<std::pair<std::string, std::string>>;
// Puts items into the dict `empty`, of which the keys are texts.
inline std::string dict(const Items& items, const std::string& empty = "}") {
  std::string all = empty + "(";
  for (const auto& [key, value] : items) all += text(key) + value;
  return all + "u";
}

// `type`: "FloatStorage".
inline std::string storage(const std::string& type, const std::string& key, int64_t elements) {
  const std::string module = type == "UntypedStorage" ? "torch.storage" : "torch";
  return tuple({text("storage"), global(module, type), text(key), text("cpu"), integer(elements)}) +
         "Q";
}
inline std::string tensor(const std::string& storage, int64_t offset,
                          const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  return call(
      global("torch._utils", "_rebuild_tensor_v2"),
      {storage, integer(offset), integers(sizes), integers(strides), kFalse, ordered_dict()});
}

inline std::string whole(const std::string& value) { return "\x80\x02" + value + "."; }

}  // namespace pickle

// Names and contents of the entries of an archive.
using Files = std::vector<std::pair<std::string, std::string>>;

// What differs in an archive from what torch writes.
struct ZipOptions {
  bool wide = false;    // numbers of the directory stand in zip64 fields
  int method = 0;       // 8: deflated
  int flags = 0x808;    // 1: encrypted
  int64_t larger = 0;   // added to the sizes that the directory says
  int64_t further = 0;  // added to the offsets that it says
};

inline std::string zip(const Files& files, const ZipOptions& options = {}) {
  std::string bytes, directory;
  for (const auto& [name, content] : files) {
    const auto size = content.size() + static_cast<uint64_t>(options.larger);
    const auto offset = bytes.size() + static_cast<uint64_t>(options.further);
    // Sizes of the local header are zero, those of the directory count.
    bytes += "PK\x03\x04" + std::string(22, '\0') + little_endian(name.size(), 2) +
             little_endian(4, 2) + name + "FB" + little_endian(0, 2) + content;
    const std::string extra = options.wide ? little_endian(1, 2) + little_endian(24, 2) +
                                                 little_endian(size, 8) + little_endian(size, 8) +
                                                 little_endian(offset, 8)
                                           : "";
    const std::string size_text = options.wide ? "\xff\xff\xff\xff" : little_endian(size, 4);
    directory += "PK\x01\x02" + std::string(4, '\0') +
                 little_endian(static_cast<uint64_t>(options.flags), 2) +
                 little_endian(static_cast<uint64_t>(options.method), 2) + std::string(8, '\0') +
                 size_text + size_text + little_endian(name.size(), 2) +
                 little_endian(extra.size(), 2) + std::string(10, '\0') +
                 (options.wide ? "\xff\xff\xff\xff" : little_endian(offset, 4)) + name + extra;
  }
  const std::string offset = little_endian(bytes.size(), 8);
  const std::string size = little_endian(directory.size(), 8);
  const std::string count = little_endian(files.size(), 8);
  const std::string end64 = little_endian(bytes.size() + directory.size(), 8);
  bytes += directory;
  if (options.wide)
    bytes += "PK\x06\x06" + little_endian(44, 8) + std::string(12, '\0') + count + count + size +
             offset + "PK\x06\x07" + std::string(4, '\0') + end64 + little_endian(1, 4);
  return bytes + "PK\x05\x06" + std::string(4, '\0') + count.substr(0, 2) + count.substr(0, 2) +
         size.substr(0, 4) + offset.substr(0, 4) + std::string(2, '\0');
}

// The file of a pickle and of the bytes of its storages, "0" and so on.
inline Files torch_entries(const std::string& pickle, const std::vector<std::string>& storages) {
  Files files = {{"archive/data.pkl", pickle}, {"archive/byteorder", "little"}};
  for (size_t i = 0; i < storages.size(); ++i)
    files.emplace_back("archive/data/" + std::to_string(i), storages[i]);
  files.emplace_back("archive/version", "3\n");
  return files;
}
inline std::string torch_file(const std::string& pickle, const std::vector<std::string>& storages) {
  return zip(torch_entries(pickle, storages), {.wide = true});
}

}  // namespace qlora::test
