// What every template finds defined: jinja2's globals and those that transformers adds.
#include <sys/time.h>

#include <array>
#include <ctime>

#include "data/jinja/callables.h"
#include "data/jinja/containers.h"
#include "data/jinja/runtime.h"
#include "data/jinja/text.h"

namespace qlora::data::jinja {
namespace {

Value call_range(Runtime& runtime, const Arguments& arguments) {
  const Parameters given("range", {"start", "stop", "step"}, arguments);
  given.required(0);
  if (!given.has(1)) return runtime.make<Range>(0, given.integer(0, 0), 1);
  return runtime.make<Range>(given.integer(0, 0), given.integer(1, 0), given.integer(2, 1));
}

// Pairs, or another dict; then the arguments by name.
template <typename F>
void read_entries(Runtime& runtime, const Arguments& arguments, const F& set) {
  if (arguments.positional.size() > 1) fail_render("takes at most one argument without a name");
  for (const Value& source : arguments.positional) {
    if (const Dict* dict = source.as<Dict>()) {
      for (const auto& [key, value] : dict->entries()) set(key, value);
      continue;
    }
    for (const Value& pair : collect(runtime, source)) {
      const Values parts = collect(runtime, pair);
      if (parts.size() != 2) fail_render("must be made of pairs of a key and a value");
      set(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : arguments.keyword) set(runtime.text(name), value);
}

Value call_dict(Runtime& runtime, const Arguments& arguments) {
  Dict& dict = runtime.make<Dict>();
  read_entries(runtime, arguments,
               [&](const Value& key, const Value& value) { dict.set(runtime, key, value); });
  return dict;
}

Value call_namespace(Runtime& runtime, const Arguments& arguments) {
  Namespace& space = runtime.make<Namespace>();
  read_entries(runtime, arguments, [&](const Value& key, const Value& value) {
    if (!key.is_text()) fail_render("a namespace's attributes must have strings as names");
    space.set(runtime, key.bytes(), value);
  });
  return space;
}

Value call_raise_exception(Runtime& runtime, const Arguments& arguments) {
  const Parameters given("raise_exception", {"message"}, arguments);
  throw Failure(to_text(runtime, given.required(0)));
}

// datetime.now().strftime(format)
Value call_strftime_now(Runtime& runtime, const Arguments& arguments) {
  constexpr size_t kMostFormat = 1000;
  const Parameters given("strftime_now", {"format"}, arguments);
  given.required(0);
  std::string format = given.text(0, "");
  if (format.size() > kMostFormat || format.find('\0') != std::string::npos) {
    fail_render("strftime_now's format must have at most {} bytes and no zero", kMostFormat);
  }
  runtime.note_clock();
  timeval now{};
  gettimeofday(&now, nullptr);
  // %f is Python's own; %z and %Z are empty for a time without a zone.
  std::string expanded;
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (next == 'f') expanded += fmt::format("{:06}", now.tv_usec);
    if (next == '%') expanded += "%%";
    if (next == 'f' || next == '%' || next == 'z' || next == 'Z') {
      ++i;
    } else {
      expanded += format[i];
    }
  }
  std::tm local{};
  localtime_r(&now.tv_sec, &local);
  // One more character, so that 0 can only mean that the buffer is too small.
  std::array<char, 64 << 10> buffer;
  const size_t size = std::strftime(buffer.data(), buffer.size(), (expanded + " ").c_str(), &local);
  if (size == 0) fail_render("strftime_now's result is too long");
  return runtime.text(std::string(buffer.data(), size - 1));
}

// cycler("a", "b"): each next() gives the following value, over and over.
class Cycler : public Object {
 public:
  explicit Cycler(Values items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  Value next(Runtime& runtime) {
    set_index(runtime, index_ + 1);
    return items_[(index_ - 1) % items_.size()];
  }
  void reset(Runtime& runtime) { set_index(runtime, 0); }

 private:
  void set_index(Runtime& runtime, size_t index) {
    runtime.before_change([this, old = index_] { index_ = old; });
    index_ = index;
  }

  const Values items_;
  size_t index_ = 0;
};

std::optional<Value> Cycler::attribute(Runtime& runtime, std::string_view name) {
  if (name == "current") return items_[index_ % items_.size()];
  if (name == "next") {
    return runtime.make<Method>(*this, [](Runtime& running, const Value& self, const Arguments&) {
      return self.as<Cycler>()->next(running);
    });
  }
  if (name != "reset") return std::nullopt;
  return runtime.make<Method>(*this, [](Runtime& running, const Value& self, const Arguments&) {
    self.as<Cycler>()->reset(running);
    return Value(None{});
  });
}

Value call_cycler(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) fail_render("at least one item has to be provided");
  return runtime.make<Cycler>(arguments.positional);
}

// joiner(", "): nothing at the first call, then the separator.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments&) override {
    runtime.before_change([this, old = used_] { used_ = old; });
    return std::exchange(used_, true) ? separator_ : runtime.text("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

Value call_joiner(Runtime& runtime, const Arguments& arguments) {
  const Parameters given("joiner", {"sep"}, arguments);
  return runtime.make<Joiner>(given.has(0) ? given[0] : runtime.text(", "));
}

}  // namespace

void define_globals(Runtime& runtime) {
  static constexpr std::array<std::pair<std::string_view, FunctionBody>, 7> kFunctions = {{
      {"range", call_range},
      {"dict", call_dict},
      {"namespace", call_namespace},
      {"raise_exception", call_raise_exception},
      {"strftime_now", call_strftime_now},
      {"cycler", call_cycler},
      {"joiner", call_joiner},
  }};
  for (const auto& [name, body] : kFunctions) {
    runtime.globals().set(name, runtime.make<Function>(name, body));
  }
}

}  // namespace qlora::data::jinja
