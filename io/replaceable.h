// Files and directories that a command writes, and must not write over someone else's.
#pragma once

#include <string>
#include <string_view>

namespace qlora::io {

// ConfigError unless nothing is at `path`, or an empty file, or one that begins with `head`, as
// all that the program writes of its kind do. `what` is that kind: "page".
void require_replaceable(const std::string& path, std::string_view head, std::string_view what);

// ConfigError if anything is at `path`.
void require_new(const std::string& path);

// ConfigError unless something new can be made at `path`: each name that is to be made is short
// enough, also with what partial ones have behind it (io/atomic_write.h), and the nearest thing
// above it that is there is a directory. IoError if nothing may be made in that. Nothing is tried.
void require_place(const std::string& path);

// Why a rename would not put another directory in the place of this empty one, as the predicate of
// a sentence: "is a link or a mount point". Empty: it would. Nothing is tried. IoError.
std::string obstacle_to_replacing(const std::string& directory);

}  // namespace qlora::io
