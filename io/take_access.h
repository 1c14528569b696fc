// Who may read and write what is put in the place of something older.
#pragma once

#include <string>

namespace qlora::io {

// Gives the open file or directory the mode, the group, the owner and the access control lists of
// what lies at `path`, as far as the system allows; does nothing where nothing or a link is there.
// What the older one kept from others is kept from them in any case: where its group or its lists
// cannot be had, a group may do no more than everybody. The owner of a directory may always use it.
void take_access(int file, const std::string& path);

}  // namespace qlora::io
