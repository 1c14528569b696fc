// A macro, or the body of a {% call %} block, with the variables it was defined among.
#pragma once

#include "data/jinja/runtime.h"
#include "data/jinja/statements.h"

namespace qlora::data::jinja {

class BoundMacro : public Object {
 public:
  BoundMacro(const MacroDefinition& definition, Scope& scope)
      : definition_(definition), scope_(scope) {}
  std::string_view type_name() const override { return "Macro"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;

 private:
  void bind_keyword(Runtime& runtime, const Arguments& arguments, Values& values,
                    Scope& scope) const;

  const MacroDefinition& definition_;
  Scope& scope_;
};

}  // namespace qlora::data::jinja
