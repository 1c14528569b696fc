#pragma once

#include "base/faults.h"
#include "recipes/recipe.h"

namespace qlora::test {

// ConfigError with all that the recipe's sections do not agree about.
inline void require_sections_agree(const recipes::Recipe& recipe) {
  Faults faults;
  recipe.find_faults_across_sections(faults);
  faults.throw_if_any();
}

}  // namespace qlora::test
