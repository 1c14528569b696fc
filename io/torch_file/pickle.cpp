#include "io/torch_file/pickle.h"

#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace qlora::io {
namespace {

constexpr size_t kMostBytes = size_t{1} << 27;
constexpr size_t kMostValues = size_t{1} << 22;  // made, remembered, or on the stack
constexpr size_t kDeepest = 200;
constexpr const char* kOrderedDict = "collections.OrderedDict";

enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kProtocol = 0x80,
  kFrame = 0x95,
  kNone = 'N',
  kTrue = 0x88,
  kFalse = 0x89,
  kInt4 = 'J',
  kInt1 = 'K',
  kInt2 = 'M',
  kLong1 = 0x8a,
  kFloat = 'G',
  kText4 = 'X',
  kText1 = 0x8c,
  kText8 = 0x8d,
  kBytes4 = 'B',
  kBytes1 = 'C',
  kBytes8 = 0x8e,
  kEmptyTuple = ')',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kTuple = 't',
  kEmptyList = ']',
  kAppend = 'a',
  kAppends = 'e',
  kEmptyDict = '}',
  kSetItem = 's',
  kSetItems = 'u',
  kPut1 = 'q',
  kPut4 = 'r',
  kMemoize = 0x94,
  kGet1 = 'h',
  kGet4 = 'j',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kReduce = 'R',
  kBuild = 'b',
  kPersistent = 'Q',
};

// Opcodes that make or change objects of any class.
std::string name_of_refused(uint8_t opcode) {
  constexpr std::pair<uint8_t, const char*> kNames[] = {
      {'i', "INST"},       {'o', "OBJ"},        {'P', "PERSID"}, {0x81, "NEWOBJ"},
      {0x82, "EXT1"},      {0x83, "EXT2"},      {0x84, "EXT4"},  {0x92, "NEWOBJ_EX"},
      {0x8f, "EMPTY_SET"}, {0x96, "BYTEARRAY8"}};
  for (const auto& [number, name] : kNames)
    if (number == opcode) return fmt::format("{} (0x{:02x})", name, opcode);
  return fmt::format("0x{:02x}", opcode);
}

class Reader {
 public:
  Reader(std::string_view bytes, std::string place,
         const std::function<bool(const std::string&)>& is_known)
      : bytes_(bytes), place_(std::move(place)), is_known_(is_known) {}

  Pickle read() {
    if (bytes_.size() > kMostBytes)
      fail<FormatError>("{} must have at most {} bytes, found {}", place_, kMostBytes,
                        bytes_.size());
    if (number<uint8_t>() != kProtocol) reject("must begin with its protocol");
    const auto protocol = number<uint8_t>();
    if (protocol < 2 || protocol > 5)
      reject(fmt::format("must be of protocol 2 to 5, found {}", protocol));
    while (true) {
      opcode_at_ = at_;
      const auto opcode = number<uint8_t>();
      if (opcode == kStop) break;
      if (!read_plain(opcode) && !read_container(opcode) && !read_reference(opcode))
        reject(fmt::format(
            "has the opcode {}, which no dict of tensors needs and this program does not run; save "
            "the tensors alone, as torch.save(model.state_dict(), ...) does",
            name_of_refused(opcode)));
    }
    pickle_.root = pop();
    if (!stack_.empty() || !marks_.empty() || at_ != bytes_.size())
      reject("must end with one value, and leaves others");
    return std::move(pickle_);
  }

 private:
  using Kind = PickleKind;

  // `what` goes on from "the pickle".
  [[noreturn]] void reject(const std::string& what) const {
    fail<FormatError>("{}: the pickle {} (at byte {})", place_, what, opcode_at_);
  }

  std::string_view piece(uint64_t size) {
    if (size > bytes_.size() - at_) reject("is cut off");
    const std::string_view found = bytes_.substr(at_, size);
    at_ += size;
    return found;
  }
  template <typename Number>
  Number number() {  // little-endian
    Number value = 0;
    std::memcpy(&value, piece(sizeof(Number)).data(), sizeof(Number));
    return value;
  }
  double big_endian_double() {
    uint64_t bits = 0;
    for (const char byte : piece(sizeof(double))) bits = bits << 8 | static_cast<uint8_t>(byte);
    return std::bit_cast<double>(bits);
  }
  int64_t long_integer() {  // little-endian two's complement of a few bytes
    const std::string_view digits = piece(number<uint8_t>());
    if (digits.size() > sizeof(int64_t)) reject("must have no integer of more than 64 bits");
    uint64_t bits = !digits.empty() && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
    std::memcpy(&bits, digits.data(), digits.size());
    return static_cast<int64_t>(bits);
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) reject("is cut off");
    const std::string_view found = piece(end - at_);
    ++at_;
    return found;
  }

  void require_room(size_t taken) const {
    if (taken >= kMostValues) reject(fmt::format("must have at most {} values", kMostValues));
  }
  bool push(PickleValue value) {
    require_room(pickle_.values.size());
    pickle_.values.push_back(std::move(value));
    return push_again(static_cast<uint32_t>(pickle_.values.size() - 1));
  }
  bool push_again(uint32_t value) {
    require_room(stack_.size());
    stack_.push_back(value);
    return true;
  }
  bool push_mark() {
    if (marks_.size() >= kDeepest) reject(fmt::format("must nest at most {} deep", kDeepest));
    marks_.push_back(stack_.size());
    return true;
  }
  bool push_text(std::string_view text) {
    if (find_invalid_utf8(text)) reject("must have texts in UTF-8");
    return push({.kind = Kind::kText, .text = text});
  }
  bool push_global(std::string_view module, std::string_view name) {
    PickleValue global{.kind = Kind::kGlobal, .text = module, .name = name};
    const std::string full = full_name(global);
    if (find_invalid_utf8(full)) reject("must have names in UTF-8");
    if (!is_known_(full))
      reject(fmt::format(
          "names {}, which is no part of a dict of tensors; nothing of it was run. If you trust "
          "the file, load it with torch, convert it to a dict of tensors, and save that with "
          "safetensors.torch.save_file",
          full));
    return push(std::move(global));
  }

  // Values below the last mark belong to what was begun before it.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  uint32_t top() const {
    if (stack_.size() <= floor()) reject("takes a value that is not there");
    return stack_.back();
  }
  uint32_t pop() {
    const uint32_t value = top();
    stack_.pop_back();
    return value;
  }
  // The last `count` values in their order.
  std::vector<uint32_t> pop_last(size_t count) {
    if (stack_.size() - floor() < count) reject("takes values that are not there");
    const auto first = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<uint32_t> values(first, stack_.end());
    stack_.erase(first, stack_.end());
    return values;
  }
  // Those behind the last mark, which goes with them.
  std::vector<uint32_t> pop_marked() {
    if (marks_.empty()) reject("takes values from a mark that is not there");
    std::vector<uint32_t> values = pop_last(stack_.size() - marks_.back());
    marks_.pop_back();
    return values;
  }
  bool push_tuple(std::vector<uint32_t> items) {
    return push({.kind = Kind::kTuple, .items = std::move(items)});
  }
  bool extend(Kind kind, const std::vector<uint32_t>& items) {
    PickleValue& container = pickle_.values[top()];
    if (container.kind != kind) reject("puts elements into what is no list or dict");
    if (kind == Kind::kDict && items.size() % 2 != 0) reject("has a key without a value");
    container.items.insert(container.items.end(), items.begin(), items.end());
    return true;
  }

  bool read_plain(uint8_t opcode) {
    switch (opcode) {
      case kNone:
        return push({});
      case kTrue:
        return push({.kind = Kind::kBool, .integer = 1});
      case kFalse:
        return push({.kind = Kind::kBool});
      case kInt4:
        return push({.kind = Kind::kInteger, .integer = number<int32_t>()});
      case kInt1:
        return push({.kind = Kind::kInteger, .integer = number<uint8_t>()});
      case kInt2:
        return push({.kind = Kind::kInteger, .integer = number<uint16_t>()});
      case kLong1:
        return push({.kind = Kind::kInteger, .integer = long_integer()});
      case kFloat:
        return push({.kind = Kind::kFloat, .number = big_endian_double()});
      case kText1:
        return push_text(piece(number<uint8_t>()));
      case kText4:
        return push_text(piece(number<uint32_t>()));
      case kText8:
        return push_text(piece(number<uint64_t>()));
      case kBytes1:
        return push({.kind = Kind::kBytes, .text = piece(number<uint8_t>())});
      case kBytes4:
        return push({.kind = Kind::kBytes, .text = piece(number<uint32_t>())});
      case kBytes8:
        return push({.kind = Kind::kBytes, .text = piece(number<uint64_t>())});
      default:
        return false;
    }
  }

  bool read_container(uint8_t opcode) {
    switch (opcode) {
      case kMark:
        return push_mark();
      case kEmptyTuple:
        return push_tuple({});
      case kTuple1:
        return push_tuple(pop_last(1));
      case kTuple2:
        return push_tuple(pop_last(2));
      case kTuple3:
        return push_tuple(pop_last(3));
      case kTuple:
        return push_tuple(pop_marked());
      case kEmptyList:
        return push({.kind = Kind::kList});
      case kAppend:
        return extend(Kind::kList, pop_last(1));
      case kAppends:
        return extend(Kind::kList, pop_marked());
      case kEmptyDict:
        return push({.kind = Kind::kDict});
      case kSetItem:
        return extend(Kind::kDict, pop_last(2));
      case kSetItems:
        return extend(Kind::kDict, pop_marked());
      default:
        return false;
    }
  }

  bool read_reference(uint8_t opcode) {
    switch (opcode) {
      case kFrame:  // for readers that fetch the pickle piece by piece
        if (number<uint64_t>() > bytes_.size() - at_) reject("is cut off");
        return true;
      case kPut1:
        return remember(number<uint8_t>());
      case kPut4:
        return remember(number<uint32_t>());
      case kMemoize:
        return remember(static_cast<uint32_t>(memo_.size()));
      case kGet1:
        return recall(number<uint8_t>());
      case kGet4:
        return recall(number<uint32_t>());
      case kGlobal: {
        const std::string_view module = line();
        return push_global(module, line());
      }
      case kStackGlobal: {
        const std::vector<uint32_t> names = pop_last(2);
        return push_global(text_of(names[0]), text_of(names[1]));
      }
      case kPersistent:
        return push({.kind = Kind::kPersistent, .items = {pop()}});
      case kReduce:
        return call();
      case kBuild:
        return set_attributes();
      default:
        return false;
    }
  }

  bool remember(uint32_t place) {
    require_room(memo_.size());
    memo_[place] = top();
    return true;
  }
  bool recall(uint32_t place) {
    const auto found = memo_.find(place);
    if (found == memo_.end()) reject("takes a value that it did not remember");
    return push_again(found->second);
  }
  std::string_view text_of(uint32_t place) const {
    const PickleValue& value = pickle_[place];
    if (value.kind != Kind::kText) reject("names a global by what is no text");
    return value.text;
  }

  bool call() {
    std::vector<uint32_t> parts = pop_last(2);
    const PickleValue &function = pickle_[parts[0]], &arguments = pickle_[parts[1]];
    if (function.kind != Kind::kGlobal || arguments.kind != Kind::kTuple)
      reject("calls what is no function, or without a tuple of arguments");
    if (full_name(function) != kOrderedDict)
      return push({.kind = Kind::kCall, .items = std::move(parts)});
    if (!arguments.items.empty()) reject("makes an OrderedDict from arguments");
    return push({.kind = Kind::kDict});
  }
  // A state dict has an attribute with the versions of its modules; no tensor depends on it.
  bool set_attributes() {
    pop();
    if (pickle_[top()].kind != Kind::kDict)
      reject("has the opcode BUILD for what is no OrderedDict, which this program does not run");
    return true;
  }

  std::string_view bytes_;
  std::string place_;
  const std::function<bool(const std::string&)>& is_known_;
  size_t at_ = 0, opcode_at_ = 0;
  Pickle pickle_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<uint32_t, uint32_t> memo_;
};

}  // namespace

std::string full_name(const PickleValue& global) {
  return fmt::format("{}.{}", global.text, global.name);
}

Pickle read_pickle(std::string_view bytes, const std::string& place,
                   const std::function<bool(const std::string&)>& is_known) {
  return Reader(bytes, place, is_known).read();
}

}  // namespace qlora::io
