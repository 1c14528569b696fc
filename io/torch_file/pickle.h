// Pickles as data (Python's Lib/pickletools.py describes the opcodes): the reader notes what they
// describe and runs nothing. The call of a function becomes a note of its name and its arguments,
// and only names that the caller knows may occur at all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::io {

enum class PickleKind {
  kNone,
  kBool,
  kInteger,
  kFloat,
  kText,
  kBytes,
  kTuple,
  kList,
  kDict,        // collections.OrderedDict, too
  kGlobal,      // a class, function or constant of a module
  kCall,        // of a global
  kPersistent,  // an object that lies outside the pickle
};

struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  int64_t integer = 0;         // kInteger; kBool: 0 or 1
  double number = 0;           // kFloat
  std::string_view text = {};  // kText (UTF-8), kBytes; kGlobal: the module
  std::string_view name = {};  // kGlobal: within the module
  std::vector<uint32_t> items =
      {};  // places of other values in Pickle::values. kTuple, kList:
           // elements; kDict: keys and values in turn; kCall: the global and a
           // tuple of arguments; kPersistent: what identifies the object
};

// Values may be parts of several others, and of themselves.
struct Pickle {
  std::vector<PickleValue> values;
  uint32_t root = 0;

  const PickleValue& operator[](uint32_t place) const { return values[place]; }
};

// "torch.FloatStorage" of a kGlobal.
std::string full_name(const PickleValue& global);

// Reads a pickle of protocol 2 to 5 with the opcodes that torch.save needs for dicts, lists, tuples
// and plain values, which are views of `bytes`. `place` names it in messages; `is_known` says
// whether a global ("torch.FloatStorage") may occur. FormatError, with the offset, for other
// globals and opcodes, whatever else is no such pickle, and one of more than 2^27 bytes, 2^22
// values or 200 unfinished containers within each other.
Pickle read_pickle(std::string_view bytes, const std::string& place,
                   const std::function<bool(const std::string&)>& is_known);

}  // namespace qlora::io
