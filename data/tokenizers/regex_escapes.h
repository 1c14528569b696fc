// Escapes of Oniguruma that PCRE2 spells otherwise, or that depend on how it was built.
#pragma once

namespace qlora::data {

// Inside and outside of a class; nullptr: no such thing there.
struct Respelled {
  const char* in_class;
  const char* outside;
};

// Of a backslash and the letter; nullptr: it is not respelled.
const Respelled* respelled(char letter);

}  // namespace qlora::data
