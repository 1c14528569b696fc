// Names of models on the Hugging Face hub: "org/name", or with a revision "org/name@revision"; and
// where a model of the hub lies in the local cache of its tools.
#pragma once

#include <optional>
#include <string>

namespace qlora {

struct HubId {
  std::string id;  // "org/name"; "gpt2" of the hub's oldest models
  // A branch, tag, commit or reference as "refs/pr/1"; empty: none is named.
  std::string revision;
};

// Nothing if the text has another form, or there is a file or directory of that name. A name alone
// is an id if a commit, of 40 hexadecimal digits, stands behind it: "gpt2@607a30d7...".
std::optional<HubId> hub_id_of(const std::string& text);

// "models--org--name", the folder of an id's repository in the cache.
std::string hub_folder(const std::string& id);

// A file or directory in the cache: ".../models--org--name/snapshots/REVISION/FILE".
struct HubFile {
  HubId hub;         // with its revision
  std::string file;  // below the snapshot, "sub/model.gguf"; empty: the snapshot itself
};

// By the form of the path alone. Nothing if it has another.
std::optional<HubFile> hub_file_of(const std::string& path);

// "org/name@REVISION" of a path to a snapshot in the cache, or to a GGUF file in one; any other
// text as it is.
std::string with_hub_id(const std::string& path_or_id);

}  // namespace qlora
