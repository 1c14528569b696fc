// The state of one render: what the template may still use up, the objects it made, its variables
// and what it has written.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/jinja/object.h"

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
  explicit Scope(Scope* parent) : parent_(parent) {}
  void set(std::string_view name, Value value);  // `name` must outlive the render
  // nullptr: no scope has it. `scanned` counts the variables looked at.
  const Value* find(std::string_view name, size_t& scanned) const;

 private:
  Scope* parent_;
  std::vector<std::pair<std::string_view, Value>> variables_;
};

class Runtime {
 public:
  Runtime() { globals_ = &new_scope(nullptr); }

  // One unit is about one evaluated node, 16 bytes of text or half an element of a list; what is
  // charged bounds the time of a render and its memory.
  void charge(size_t units) {
    if (units > work_left_) fail_on_work();
    work_left_ -= units;
  }

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

  // Redirects what is written, until restored.
  std::string* exchange_output(std::string* output) { return std::exchange(output_, output); }

 private:
  friend class DepthGuard;
  [[noreturn]] static void fail_on_work();

  size_t work_left_ = Limits::kWork;
  int depth_ = 0;
  std::string* output_ = nullptr;
  Scope* globals_ = nullptr;
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::unique_ptr<Scope>> scopes_;
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
