// Text <-> token ids. One interface over byte-level BPE (tokenizer.json, GGUF) and sentencepiece
// (.model, GGUF). What counts as right: the ids of Hugging Face `tokenizers` for tokenizer.json, of
// sentencepiece for .model.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qlora::data {

using TokenId = int32_t;

// A token with a role. `text` is what chat templates see as bos_token, eos_token, ...
struct SpecialToken {
  TokenId id = -1;
  std::string text;
};

struct SpecialTokens {
  std::optional<SpecialToken> bos, eos, unk, pad;
  // Every id that ends a generation: eos plus those of generation_config.json (else
  // config.json) or a GGUF file.
  std::vector<TokenId> end_of_generation;
};

// A place of a text behind a control token, where encoding may begin anew. For every text that has
// the same first `needed` bytes, the ids up to there are the same and those behind it are what
// encode_behind() gives.
struct TokenCut {
  size_t offset = 0;   // into the text
  size_t needed = 0;   // bytes, at least offset
  size_t num_ids = 0;  // in front of it, without special tokens added
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of `text` (valid UTF-8; else FormatError with the byte offset). Special and added tokens
  // written out in the text become their single id. `add_special_tokens`: what the tokenizer's own
  // post-processing adds (BOS, EOS).
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const = 0;

  // The ids of encode(text, false) behind `from` (a cut of this text, or of one that begins as far
  // as it needs with the same bytes, or {}: all of them). Appends the cuts found to `cuts` if that
  // is not null. Tokenizers that know no cuts take {} only and find none.
  virtual std::vector<TokenId> encode_behind(std::string_view text, const TokenCut& from,
                                             std::vector<TokenCut>* cuts) const;

  // Text of `ids`. Without skipping, decode(encode(x, false)) is x for byte-level vocabularies, and
  // ids that are no token's are a FormatError. Skipping leaves these out too: a model whose
  // embedding has more rows than there are tokens may choose one.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const = 0;

  // The token's own spelling in the vocabulary ("Ġthe", "▁the", "<|im_end|>"), and back.
  virtual std::string id_to_token(TokenId id) const = 0;
  virtual std::optional<TokenId> token_to_id(std::string_view token) const = 0;
  // True for control tokens: the ones decode() can skip.
  virtual bool is_special(TokenId id) const = 0;
  virtual int64_t vocab_size() const = 0;

  // The model's own chat template, empty if it has none.
  virtual const std::string& chat_template() const = 0;
  // The one beside it that is for conversations with tools, empty if it has none.
  virtual const std::string& tool_use_template() const;
  virtual const SpecialTokens& special_tokens() const = 0;

  // Writes the tokenizer files of a Hugging Face model directory, so that transformers loads the
  // same tokenizer: copies of the source's files where it is such a directory, generated
  // tokenizer.json / tokenizer_config.json (with the chat template) otherwise.
  virtual void write_files(const std::string& directory) const = 0;
  // The same files as name -> bytes ("tokenizer.json", ...). Empty for tokenizers without files.
  virtual const std::map<std::string, std::string>& files() const = 0;

  // Hash of everything that decides the ids and the template: part of what a resume checks.
  virtual std::string fingerprint() const = 0;
};

// From a Hugging Face directory, a tokenizer.json, a sentencepiece .model or a .gguf.
// tokenizer.json wins over .model.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);

// From the files that lie with an adapter, as other tools save them there; nullptr if the directory
// holds no vocabulary, or the very files of `base`, the tokenizer of its model. Its chat templates
// are those of `base`, and so are the ends of answers where the directory names none.
std::unique_ptr<Tokenizer> load_adapter_tokenizer(const std::string& directory,
                                                  const Tokenizer& base);

}  // namespace qlora::data
