// Guesses of a text's next tokens from the text itself: what stood behind its last tokens where
// they stood before (prompt lookup decoding, Saxena 2023). Answers that quote, correct or repeat
// what was said are guessed well, others are not, so as many tokens are guessed as came true of
// late.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

namespace qlora::model {

class PromptLookup {
 public:
  // Guesses at most `most` tokens at a time; 0: none.
  explicit PromptLookup(int64_t most) : most_(static_cast<size_t>(most)) {}

  // The next token of the text, which is whole before the first guess() and goes on behind it.
  void add(int32_t token);
  // What may come next, at most `room` tokens; none while too little has come true.
  std::vector<int32_t> guess(int64_t room);
  // How many of the tokens that guess() gave last, of which there were some, came true.
  void judge(int64_t came_true);

 private:
  // Where each `count` tokens of the text ended last: the place behind them. By a hash of theirs: a
  // mix-up is a wrong guess.
  struct Places {
    size_t count;
    std::unordered_map<uint64_t, size_t> behind = {};
  };

  uint64_t key_of_last(size_t count) const;
  // Of what the text's last tokens were followed by; the text's size where they are new.
  size_t place_of_next() const;

  size_t most_, length_ = 0;  // how many are guessed at a time
  std::vector<int32_t> text_;
  std::array<Places, 3> places_{Places{4}, Places{3}, Places{2}};
  std::optional<int32_t> silent_guess_;  // while none are given: the first that would be
  size_t given_ = 0;                     // by the last guess()
};

}  // namespace qlora::model
