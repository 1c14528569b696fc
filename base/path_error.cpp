#include "base/path_error.h"

#include <cerrno>

namespace qlora {

bool is_wrong_path(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return true;
    default:
      return false;
  }
}

}  // namespace qlora
