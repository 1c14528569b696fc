// The text of an error that is to come.
#pragma once

#include <string>

namespace qlora::test {

// What `work` throws, an E, says; "no error" if it throws nothing.
template <typename E, typename Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const E& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace qlora::test
