// The texts of many prefixes of one list, found in one render of the whole list.
//
// A template that goes through `messages` from the front writes the same for a conversation and for
// its beginning until it comes to the beginning's last message. So the whole is rendered once, and
// where a loop over the list comes to the last message of a wanted prefix, the rest of the template
// is run aside as if the list ended there; then everything is set back and the loop goes on.
//
// That is exact because the list knows what was asked of it: every answer that a shorter list would
// have given otherwise (its length, an item from the end, loop.last) raises the length from which
// on the state stands for a prefix. A prefix that is too short for what was asked before its turn
// is left out, and so is one that no loop on the template's outermost level comes to.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "data/jinja/containers.h"
#include "data/jinja/runtime.h"
#include "data/shared_text.h"

namespace qlora::data::jinja {

// Thrown when all wanted prefixes are written; nobody needs the rest of the render.
struct PrefixesDone {};

class Prefixes {
 public:
  // `lengths` ascending, at least 1 and at most `list_length`.
  Prefixes(std::vector<size_t> lengths, size_t list_length)
      : wanted_(std::move(lengths)), visible_(list_length) {}

  // How many items of the list are to be seen just now.
  size_t visible() const { return visible_; }
  // What was seen holds for prefixes of at least this length, or for the whole list only.
  void needs(size_t length) {
    if (!aside_ && length > needed_) needed_ = length;
  }
  void needs_all() { needs(std::numeric_limits<size_t>::max()); }

  // Called by a loop before it runs its body for the item number `length` (counted from 1);
  // `finish_loop` runs the loop to its end.
  template <typename F>
  void reach(size_t length, Runtime& runtime, Scope& scope, const F& finish_loop) {
    if (!begins_aside(length, runtime)) return;
    {
      const Runtime::Aside aside(runtime, scope);
      aside_ = true;
      const size_t whole = std::exchange(visible_, length);
      try {
        finish_loop();
        runtime.run_outer_rest();
        keep(length, aside.written());
      } catch (...) {
        aside_ = false;
        visible_ = whole;
        throw;
      }
      aside_ = false;
      visible_ = whole;
    }
    if (next_ == wanted_.size()) throw PrefixesDone();
  }

  // Prefix length -> its text, over what the render of the whole wrote.
  std::map<size_t, SharedText> take() { return std::move(texts_); }

 private:
  bool begins_aside(size_t length, const Runtime& runtime);
  void keep(size_t length, SharedText text) { texts_.emplace(length, std::move(text)); }

  const std::vector<size_t> wanted_;
  size_t next_ = 0;  // the first of wanted_ that no loop has come to
  size_t visible_;
  size_t needed_ = 0;
  bool aside_ = false;
  std::map<size_t, SharedText> texts_;
};

// The list, or what follows its first `offset` items.
class PrefixList final : public List {
 public:
  PrefixList(Values values, size_t offset, Prefixes& prefixes)
      : List(std::move(values), false), offset_(offset), prefixes_(prefixes) {}

  const Values& items() const override;
  std::optional<int64_t> length(Runtime&) const override;
  Values collect(Runtime& runtime) override;
  std::optional<Value> item(Runtime& runtime, const Value& key) override;
  bool is_true(Runtime& runtime) const override;

  // Without a trace of having been asked.
  size_t visible() const;
  const Values& whole() const { return List::items(); }
  size_t offset() const { return offset_; }
  Prefixes& prefixes() const { return prefixes_; }
  // items[begin:]
  Value tail(Runtime& runtime, size_t begin) const;

 private:
  const size_t offset_;
  Prefixes& prefixes_;
  mutable Values seen_;  // by items(), where not all are visible
};

}  // namespace qlora::data::jinja
