// How the fields of a section are made from the members of its options struct (fields.cpp,
// lora_fields.cpp, train_fields.cpp).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "recipes/fields/field_values.h"
#include "recipes/fields/fields.h"

namespace qlora::recipes {

// What a key is called, what it takes and what it does.
struct About {
  const char* key;
  const char* type;
  const char* meaning;
};

struct Required {};
// On resume the value may be another; says what that does.
struct Free {
  const char* effect;
};

// What the reference page says of the default where it is more than one value.
struct ShownDefault {
  const char* text;
};

// Values that are written otherwise may come to the same.
struct Compared {
  bool (*comes_to_the_same)(const Recipe&, const Recipe&);
};

using RecipeField = Field<Recipe>;

inline RecipeField operator|(RecipeField field, Free free) {
  field.on_resume = OnResume::kFree;
  field.resume_effect = free.effect;
  return field;
}

inline RecipeField operator|(RecipeField field, Required) {
  field.required = true;
  return field;
}

inline RecipeField operator|(RecipeField field, ShownDefault shown) {
  field.shown_default = shown.text;
  return field;
}

inline RecipeField operator|(RecipeField field, Compared compared) {
  field.comes_to_the_same = compared.comes_to_the_same;
  return field;
}

// Makes the fields of one section from members of its options struct.
template <typename Options>
struct Members {
  Options Recipe::*section;

  template <typename T>
  RecipeField operator()(About about, T Options::*member) const {
    RecipeField field{about.key, about.type, about.meaning};
    field.read = [section = section, member](const Node& node, const std::string& key,
                                             ProblemList& problems, Recipe& recipe) {
      decode(node, key, problems, (recipe.*section).*member);
    };
    field.write = [section = section, member](const Recipe& recipe) {
      return encode((recipe.*section).*member);
    };
    return field;
  }

  // A word that may also be one of YAML's booleans.
  RecipeField word_or_boolean(About about, std::string Options::*member) const {
    RecipeField field{about.key, about.type, about.meaning};
    field.read = [section = section, member](const Node& node, const std::string& key,
                                             ProblemList& problems, Recipe& recipe) {
      decode_word_or_boolean(node, key, problems, (recipe.*section).*member);
    };
    field.write = [section = section, member](const Recipe& recipe) {
      return Node::scalar((recipe.*section).*member);
    };
    return field;
  }
};

template <typename Options>
Section section(const char* name, const char* meaning, Options Recipe::*member,
                std::vector<RecipeField> fields) {
  return {name, meaning, std::move(fields),
          [member](const Recipe& recipe, Faults& faults) { (recipe.*member).find_faults(faults); }};
}

Section lora_section();
Section train_section();

}  // namespace qlora::recipes
