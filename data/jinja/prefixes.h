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
//
// Templates often look through the list for something (a system message) before the loop that
// writes it. Asides in that earlier loop would each run the later one from its beginning. So an
// aside that comes to another loop is given up, and the later loop is waited for: the state behind
// a loop stands for every prefix that has the last item for which the loop changed anything or
// asked beyond it. What that leaves out, a second pass with asides in the first loop can tell.
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
  // Whether asides wait for the last of several loops, or take the first one.
  enum class Waits { kForLastLoop, kForNone };

  // `lengths` ascending, at least 1 and at most `list_length`.
  Prefixes(std::vector<size_t> lengths, size_t list_length, Waits waits = Waits::kForNone)
      : wanted_(std::move(lengths)), waits_(waits), visible_(list_length) {}

  // How many items of the list are to be seen just now.
  size_t visible() const { return visible_; }
  // What was seen holds for prefixes of at least this length, or for the whole list only.
  void needs(size_t length) {
    if (!aside_ && length > needed_) needed_ = length;
  }
  void needs_all() { needs(std::numeric_limits<size_t>::max()); }
  size_t needed() const { return needed_; }
  // Behind a loop: of what was needed within it, no more than this lasts.
  void set_needed(size_t length) {
    if (!aside_) needed_ = length;
  }

  // Called where a loop over the list begins.
  void enter_loop(const Runtime& runtime) {
    if (!runtime.can_run_outer_rest()) return;
    if (aside_ && gives_up_) throw LaterLoop();
    if (!aside_) is_passed_by_ = false;
  }

  // Called by a loop before it runs its body for the item number `length` (counted from 1);
  // `finish_loop` runs the loop to its end.
  template <typename F>
  void reach(size_t length, Runtime& runtime, Scope& scope, const F& finish_loop) {
    if (!begins_aside(length, runtime)) return;
    gives_up_ = waits_ == Waits::kForLastLoop;
    try {
      texts_.emplace(length, run_aside(length, runtime, scope, [&] {
                       finish_loop();
                       runtime.run_outer_rest();
                     }));
    } catch (const LaterLoop&) {
      is_passed_by_ = passed_by_any_ = true;
      next_ = 0;
    }
    gives_up_ = false;
    if (next_ == wanted_.size()) throw PrefixesDone();
  }

  // What `render` writes where the list has this length; it leaves no trace.
  template <typename F>
  SharedText run_aside(size_t length, Runtime& runtime, Scope& scope, const F& render) {
    const Runtime::Aside aside(runtime, scope);
    const AsOfLength shorter(*this, length);
    render();
    return aside.written();
  }

  // Whether a loop was passed by for a later one.
  bool passed_by_any() const { return passed_by_any_; }

  // Prefix length -> its text, over what the render of the whole wrote.
  std::map<size_t, SharedText> take() { return std::move(texts_); }

 private:
  // Thrown by a loop that an aside comes to.
  struct LaterLoop {};

  // While it lives, the list has this length.
  struct AsOfLength {
    AsOfLength(Prefixes& prefixes, size_t length)
        : of(prefixes), whole(std::exchange(prefixes.visible_, length)) {
      of.aside_ = true;
    }
    ~AsOfLength() {
      of.aside_ = false;
      of.visible_ = whole;
    }
    AsOfLength(const AsOfLength&) = delete;
    AsOfLength& operator=(const AsOfLength&) = delete;
    Prefixes& of;
    const size_t whole;
  };

  bool begins_aside(size_t length, const Runtime& runtime);

  const std::vector<size_t> wanted_;
  const Waits waits_;
  size_t next_ = 0;  // the first of wanted_ that no loop has come to
  size_t visible_;
  size_t needed_ = 0;
  bool aside_ = false;
  bool gives_up_ = false;      // the aside, where it comes to another loop
  bool is_passed_by_ = false;  // the running loop, as there is a later one
  bool passed_by_any_ = false;
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
  Values visible_items(Runtime& runtime) const;
  // An answer that took only these of the visible items: the same for each list that has them.
  void needs_first(size_t count) const { prefixes_.needs(count == 0 ? 0 : offset_ + count); }
  const Values& whole() const { return List::items(); }
  size_t offset() const { return offset_; }
  Prefixes& prefixes() const { return prefixes_; }
  // items[begin:end], of which all can be seen.
  Value part(Runtime& runtime, size_t begin, size_t end) const;
  // items[begin:]
  Value tail(Runtime& runtime, size_t begin) const;

 private:
  const size_t offset_;
  Prefixes& prefixes_;
  mutable Values seen_;  // by items(), where not all are visible
};

// The items of `over` for which `holds` is true. A list of prefixes is asked for those that decide
// the answer: up to the last one that is chosen, or for which `holds` changed anything.
template <typename F>
Values items_where(Runtime& runtime, const Value& over, const F& holds) {
  const auto* prefixes = over.as<PrefixList>();
  const Values all = prefixes ? prefixes->visible_items(runtime) : collect(runtime, over);
  Values chosen;
  size_t decided = 0;  // by so many of them
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t changes = runtime.changes();
    const bool is_chosen = holds(all[i]);
    if (is_chosen) chosen.push_back(all[i]);
    if (is_chosen || runtime.changes() != changes) decided = i + 1;
  }
  if (prefixes) prefixes->needs_first(decided);
  return chosen;
}

}  // namespace qlora::data::jinja
