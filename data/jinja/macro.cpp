#include "data/jinja/macro.h"

#include <algorithm>

#include "data/jinja/containers.h"

namespace qlora::data::jinja {

Value BoundMacro::call(Runtime& runtime, const Arguments& arguments) {
  const DepthGuard guard(runtime);
  Scope& inner = runtime.new_scope(&scope_);
  const auto& parameters = definition_.parameters;
  Values values(parameters.size());
  const size_t num_given = std::min(values.size(), arguments.positional.size());
  std::copy_n(arguments.positional.begin(), num_given, values.begin());
  if (definition_.uses_varargs) {
    inner.set("varargs", runtime.tuple(Values(
                             arguments.positional.begin() + static_cast<std::ptrdiff_t>(num_given),
                             arguments.positional.end())));
  } else if (arguments.positional.size() > num_given) {
    fail_render("macro '{}' takes not more than {} argument(s)", definition_.name, values.size());
  }
  bind_keyword(runtime, arguments, values, inner);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto& [name, otherwise] = parameters[i];
    if (values[i].is_missing()) {
      values[i] = otherwise ? otherwise->evaluate(runtime, inner)
                            : Value::undefined("parameter '" + name + "' was not provided");
    }
    inner.set(name, values[i]);
  }
  return runtime.text(capture(definition_.body, runtime, inner));
}

void BoundMacro::bind_keyword(Runtime& runtime, const Arguments& arguments, Values& values,
                              Scope& scope) const {
  const auto& parameters = definition_.parameters;
  Dict& others = runtime.make<Dict>();
  if (definition_.uses_caller) scope.set("caller", Value::undefined("No caller defined"));
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find_if(parameters.begin(), parameters.end(),
                                    [&](const auto& one) { return one.first == name; });
    if (found != parameters.end()) {
      Value& slot = values[static_cast<size_t>(found - parameters.begin())];
      if (!slot.is_missing()) {
        fail_render("macro '{}' got two values for argument '{}'", definition_.name, name);
      }
      slot = value;
    } else if (name == "caller" && definition_.uses_caller) {
      scope.set("caller", value);
    } else if (name == "caller" && value.as<BoundMacro>() && !definition_.uses_kwargs) {
      fail_render("macro '{}' was invoked with a call block, but never uses caller",
                  definition_.name);
    } else if (definition_.uses_kwargs) {
      others.set(runtime, runtime.text(name), value);
    } else {
      fail_render("macro '{}' takes no keyword argument '{}'", definition_.name, name);
    }
  }
  if (definition_.uses_kwargs) scope.set("kwargs", others);
}

std::optional<Value> BoundMacro::attribute(Runtime& runtime, std::string_view name) {
  if (name == "name") return runtime.text(definition_.name);
  if (name != "arguments") return std::nullopt;
  Values names;
  for (const auto& parameter : definition_.parameters) {
    names.push_back(runtime.text(parameter.first));
  }
  return runtime.tuple(std::move(names));
}

}  // namespace qlora::data::jinja
