// Names of models on the Hugging Face hub: "org/name", or with a revision "org/name@revision".
#pragma once

#include <optional>
#include <string>

namespace qlora {

struct HubId {
  std::string id;        // "org/name"
  std::string revision;  // a branch, tag or commit; empty: none is named
};

// Nothing if the text has another form, or there is a file or directory of that name.
std::optional<HubId> hub_id_of(const std::string& text);

}  // namespace qlora
