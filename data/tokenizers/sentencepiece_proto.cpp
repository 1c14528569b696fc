#include "data/tokenizers/sentencepiece_proto.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/error.h"

namespace qlora::data {
namespace {

enum WireType { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

void append_varint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void append_tag(int field, WireType type, std::string& out) {
  append_varint(static_cast<uint64_t>(field) << 3 | type, out);
}

// Negative numbers take ten bytes, as protobuf's int32 does.
void append_integer(int field, int64_t value, std::string& out) {
  append_tag(field, kVarint, out);
  append_varint(static_cast<uint64_t>(value), out);
}

void append_text(int field, std::string_view text, std::string& out) {
  append_tag(field, kLengthDelimited, out);
  append_varint(text.size(), out);
  out += text;
}

void append_float(int field, float value, std::string& out) {
  static_assert(sizeof value == 4);
  append_tag(field, kFixed32, out);
  char bytes[4];
  std::memcpy(bytes, &value, sizeof bytes);  // little-endian, as the wire wants it
  out.append(bytes, sizeof bytes);
}

constexpr int kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3;  // fields of ModelProto
constexpr int kCharsmap = 2, kAddDummyPrefix = 3;                  // fields of NormalizerSpec

std::string piece_message(const SentencePiece& piece) {
  std::string message;
  append_text(1, piece.text, message);
  append_float(2, piece.score, message);
  append_integer(3, static_cast<int64_t>(piece.type), message);
  return message;
}

std::string trainer_spec(const SentencePieceModel& model) {
  constexpr int kModelType = 3, kVocabSize = 4, kByteFallback = 35, kBpe = 2;
  const bool has_bytes =
      std::any_of(model.pieces.begin(), model.pieces.end(),
                  [](const SentencePiece& piece) { return piece.type == PieceType::kByte; });
  std::string message;
  append_integer(kModelType, kBpe, message);
  append_integer(kVocabSize, static_cast<int64_t>(model.pieces.size()), message);
  append_integer(kByteFallback, has_bytes, message);
  // The roles' ids are fields 40 to 43, their pieces 45 to 48.
  const int64_t ids[] = {model.unk_id, model.bos_id, model.eos_id, model.pad_id};
  for (int role = 0; role < 4; ++role) {
    append_integer(40 + role, ids[role], message);
    if (ids[role] < 0) continue;
    append_text(45 + role, model.pieces[static_cast<size_t>(ids[role])].text, message);
  }
  return message;
}

std::string normalizer_spec(bool add_dummy_prefix) {
  constexpr int kName = 1, kRemoveExtraWhitespaces = 4, kEscapeWhitespaces = 5;
  std::string message;
  append_text(kName, "identity", message);
  append_integer(kAddDummyPrefix, add_dummy_prefix, message);
  append_integer(kRemoveExtraWhitespaces, false, message);
  append_integer(kEscapeWhitespaces, true, message);
  return message;
}

// One field of a message: its number, and its value as the wire type has it.
struct Field {
  uint64_t number = 0, value = 0;  // of kVarint
  std::string_view bytes;          // of the other types
};

// Reads a message field by field and believes no length.
class Message {
 public:
  Message(std::string_view bytes, const std::string& place) : bytes_(bytes), place_(place) {}

  bool next(Field& field) {
    if (bytes_.empty()) return false;
    const uint64_t tag = varint();
    field = {tag >> 3, 0, {}};
    switch (tag & 7) {
      case kVarint:
        field.value = varint();
        break;
      case kFixed64:
        field.bytes = take(8);
        break;
      case kLengthDelimited:
        field.bytes = take(varint());
        break;
      case kFixed32:
        field.bytes = take(4);
        break;
      default:
        reject();
    }
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    reject();
  }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) reject();
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  [[noreturn]] void reject() const {
    fail<FormatError>("{} must be a sentencepiece model; the file is damaged or cut off", place_);
  }

  std::string_view bytes_;
  const std::string& place_;
};

SentencePiece parse_piece(std::string_view bytes, const std::string& place) {
  SentencePiece piece;
  Message message(bytes, place);
  for (Field field; message.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == sizeof(float))
      std::memcpy(&piece.score, field.bytes.data(), sizeof(float));
    if (field.number == 3 && field.value >= 1 && field.value <= 6)
      piece.type = static_cast<PieceType>(field.value);
  }
  return piece;
}

void parse_trainer(std::string_view bytes, const std::string& place, SentencePieceModel& model) {
  constexpr uint64_t kModelType = 3, kFirstRole = 40;
  int64_t* roles[] = {&model.unk_id, &model.bos_id, &model.eos_id, &model.pad_id};
  Message message(bytes, place);
  for (Field field; message.next(field);) {
    if (field.number == kModelType) model.kind = static_cast<PieceModel>(field.value);
    if (field.number >= kFirstRole && field.number < kFirstRole + std::size(roles))
      *roles[field.number - kFirstRole] = static_cast<int64_t>(field.value);
  }
}

}  // namespace

SentencePieceModel parse_model(std::string_view serialized_model, const std::string& place) {
  // What the format's defaults are.
  SentencePieceModel model;
  model.bos_id = 1;
  model.eos_id = 2;
  model.kind = PieceModel::kUnigram;
  Message message(serialized_model, place);
  for (Field field; message.next(field);) {
    if (field.number == kPieces) model.pieces.push_back(parse_piece(field.bytes, place));
    if (field.number == kTrainerSpec) parse_trainer(field.bytes, place, model);
    if (field.number != kNormalizerSpec) continue;
    Message normalizer(field.bytes, place);
    for (Field inner; normalizer.next(inner);) {
      if (inner.number == kCharsmap) model.charsmap = inner.bytes;
      if (inner.number == kAddDummyPrefix) model.add_dummy_prefix = inner.value != 0;
    }
  }
  if (model.pieces.empty())
    fail<FormatError>("{} must be a sentencepiece model, and holds no pieces; copy the file again",
                      place);
  return model;
}

std::string serialize_model(const SentencePieceModel& model) {
  std::string out;
  for (const SentencePiece& piece : model.pieces) append_text(kPieces, piece_message(piece), out);
  append_text(kTrainerSpec, trainer_spec(model), out);
  append_text(kNormalizerSpec, normalizer_spec(model.add_dummy_prefix), out);
  return out;
}

std::string without_dummy_prefix(std::string serialized_model) {
  std::string message;
  append_integer(kAddDummyPrefix, false, message);
  append_text(kNormalizerSpec, message, serialized_model);
  return serialized_model;
}

}  // namespace qlora::data
