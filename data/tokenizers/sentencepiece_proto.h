// sentencepiece's ModelProto, written and read by hand in protobuf's wire format
// (sentencepiece_model.proto): what a GGUF's "llama" vocabulary is turned into, so that the
// sentencepiece library itself encodes with it, and what such a vocabulary is written from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::data {

// Numbers as in ModelProto, and the same in GGUF's tokenizer.ggml.token_type.
enum class PieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

enum class PieceModel { kUnigram = 1, kBpe = 2, kWord = 3, kCharacter = 4 };

struct SentencePieceModel {
  std::vector<SentencePiece> pieces;
  // Ids of the roles; -1: the vocabulary has none.
  int64_t unk_id = 0, bos_id = -1, eos_id = -1, pad_id = -1;
  bool add_dummy_prefix = true;
  PieceModel kind = PieceModel::kBpe;
  std::string charsmap = {};  // precompiled_charsmap of the normalization (charsmap.h)
};

// A BPE model with scores, byte fallback if it has byte pieces, blanks written as U+2581 and
// otherwise no normalization.
std::string serialize_model(const SentencePieceModel& model);

// Of a model that some other program may have written. FormatError naming `place` if it is none.
SentencePieceModel parse_model(std::string_view serialized_model, const std::string& place);

// The serialized model with add_dummy_prefix turned off: protobuf merges what is appended.
std::string without_dummy_prefix(std::string serialized_model);

}  // namespace qlora::data
