// Names of models on the Hugging Face hub: "org/name", or with a revision "org/name@revision".
#pragma once

#include <optional>
#include <string>

namespace qlora {

struct HubId {
  std::string id;  // "org/name"
  // A branch, tag, commit or reference as "refs/pr/1"; empty: none is named.
  std::string revision;
};

// Nothing if the text has another form, or there is a file or directory of that name.
std::optional<HubId> hub_id_of(const std::string& text);

}  // namespace qlora
