// The state of one render: what the template may still use up, the objects it made, its variables
// and what it has written.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/jinja/object.h"
#include "data/shared_text.h"

namespace qlora::data::jinja {

// Templates come from strangers: a render stops with a Failure when it passes one of these.
struct Limits {
  static constexpr size_t kWork = 40'000'000;          // see Runtime::charge
  static constexpr size_t kTextBytes = 64 << 20;       // one string, and the output
  static constexpr int kDepth = 600;                   // nested evaluations
  static constexpr int64_t kRangeLength = 100'000;     // as in jinja2's sandbox
  static constexpr size_t kContainerLength = 4 << 20;  // one list or dict
};

// An error inside a template. The innermost node that it passes gives it its place.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
  static constexpr size_t kNowhere = static_cast<size_t>(-1);
  size_t offset = kNowhere;  // into the source
};

template <typename... Args>
[[noreturn]] void fail_render(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(fmt::format(format, std::forward<Args>(args)...));
}

// Variables of one block; those of the blocks around it show through.
class Scope {
 public:
  using Variables = std::vector<std::pair<std::string_view, Value>>;
  explicit Scope(Scope* parent) : parent_(parent) {}
  Scope* parent() const { return parent_; }
  const Variables& variables() const { return variables_; }
  void set_back(Variables variables) { variables_ = std::move(variables); }
  void set(std::string_view name, Value value);  // `name` must outlive the render
  // nullptr: no scope has it. `scanned` counts the variables looked at.
  const Value* find(std::string_view name, size_t& scanned) const;

 private:
  Scope* parent_;
  Variables variables_;
};

struct Statement;

class Runtime {
 public:
  Runtime() { globals_ = &new_scope(nullptr); }

  // One unit is about one evaluated node, 16 bytes of text or half an element of a list; what is
  // charged bounds the time of a render and its memory.
  void charge(size_t units) {
    if (units > work_left_) fail_on_work();
    work_left_ -= units;
  }

  // What has been charged so far, also by asides that are over.
  size_t work() const { return Limits::kWork - work_left_ + work_of_asides_; }

  // A new object that lives as long as the render.
  template <typename T, typename... Args>
  T& make(Args&&... args) {
    charge(1 + sizeof(T) / 16);
    auto object = std::make_unique<T>(std::forward<Args>(args)...);
    T& made = *object;
    objects_.push_back(std::move(object));
    return made;
  }
  Scope& new_scope(Scope* parent);
  Scope& globals() { return *globals_; }

  Value text(std::string bytes, bool markup = false);
  Value list(Values items);
  Value tuple(Values items);
  Value generator(Values items);  // what Python would compute lazily
  void write(std::string_view bytes);
  // Before a text or a container of this size is made.
  void expect_text(size_t bytes);
  void expect_items(size_t count);

  // A body that is being executed, in one that is executed around it.
  struct Frame {
    Frame(Runtime& runtime, const std::vector<const Statement*>& its_body, Scope& its_scope,
          bool is_repeated)
        : body(its_body),
          scope(its_scope),
          repeats(is_repeated),
          outer(runtime.innermost_),
          running(runtime) {
      runtime.innermost_ = this;
    }
    ~Frame() { running.innermost_ = outer; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

    const std::vector<const Statement*>& body;
    size_t next = 0;  // the statement behind the one that is executed
    Scope& scope;
    const bool repeats;
    Frame* const outer;
    Runtime& running;
  };
  // Runs what stands behind the running statement, to the end of the template. Only where no loop,
  // macro or captured block is around it.
  bool can_run_outer_rest() const;
  void run_outer_rest();

  // While it lives, whatever runs leaves no trace: variables, objects, output and the work that is
  // left are set back.
  class Aside;
  // Called when an object changes that was there before: `undo` sets it back.
  template <typename F>
  void before_change(F undo) {
    ++changes_;
    before_step(std::move(undo));
  }
  // The same of what no one sees that does not run within it: a loop's own position.
  template <typename F>
  void before_step(F undo) {
    if (undo_log_) undo_log_->push_back(std::move(undo));
  }
  // How often anything changed that outlives the body that runs: an object, the output.
  size_t changes() const { return changes_; }
  // How often an object was put where it outlives the body that runs.
  void note_kept_object() { ++kept_objects_; }
  size_t kept_objects() const { return kept_objects_; }
  // The output that asides write to, and of which it is known what generation blocks wrote.
  void watch_output() { watched_output_ = output_; }

  // How many bytes the output has.
  size_t written() const { return output_->size(); }
  // Notes that a generation block wrote the output from `begin` on. What goes elsewhere than into
  // the watched output (into a macro's text, or that of a set block) has no place in it.
  void note_generated(size_t begin) {
    if (output_ == watched_output_ && begin < written()) generated_.push_back({begin, written()});
  }
  const std::vector<TextSpan>& generated() const { return generated_; }

  // Whether something asked for the time of day: another day may write another text.
  void note_clock() { read_clock_ = true; }
  bool read_clock() const { return read_clock_; }

  // Redirects what is written, until restored.
  std::string* exchange_output(std::string* output) { return std::exchange(output_, output); }

 private:
  friend class DepthGuard;
  [[noreturn]] static void fail_on_work();

  size_t work_left_ = Limits::kWork;
  int depth_ = 0;
  std::string* output_ = nullptr;
  const std::string* watched_output_ = nullptr;
  std::vector<TextSpan> generated_;  // spans of the watched output
  bool read_clock_ = false;
  Frame* innermost_ = nullptr;
  std::vector<std::function<void()>>* undo_log_ = nullptr;
  size_t changes_ = 0, kept_objects_ = 0;
  size_t work_of_asides_ = 0;
  Scope* globals_ = nullptr;
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::unique_ptr<Scope>> scopes_;
};

class Runtime::Aside {
 public:
  // `scope`: the innermost one that was there before.
  Aside(Runtime& runtime, Scope& scope);
  ~Aside();
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;
  // What stood in the output before it (as a length), and what was written since.
  SharedText written() const;

 private:
  Runtime& runtime_;
  const size_t work_left_, output_size_, num_objects_, num_scopes_;
  std::vector<std::pair<Scope*, Scope::Variables>> variables_;
  std::vector<std::function<void()>> undo_log_;
};

// One level of nesting; stands in every function that calls itself through values or nodes.
class DepthGuard {
 public:
  explicit DepthGuard(Runtime& runtime) : runtime_(runtime) {
    runtime_.charge(1);
    if (++runtime_.depth_ > Limits::kDepth) {
      --runtime_.depth_;
      throw Failure("nested too deeply (endless recursion?)");
    }
  }
  ~DepthGuard() { --runtime_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Runtime& runtime_;
};

// What is written while it lives goes into take() instead.
class Capture {
 public:
  explicit Capture(Runtime& runtime) : runtime_(runtime), outer_(runtime.exchange_output(&text_)) {}
  ~Capture() { runtime_.exchange_output(outer_); }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::string take() { return std::move(text_); }

 private:
  Runtime& runtime_;
  std::string text_;
  std::string* outer_;
};

}  // namespace qlora::data::jinja
