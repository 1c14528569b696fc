#include "export/gguf_origin.h"

#include <cstdint>

#include "base/hub_id.h"
#include "io/user_path.h"

namespace qlora::exporting {

model::GgufMetadata gguf_origin(const std::string& base) {
  const auto hub = hub_id_of(base);
  if (!hub) return {{"general.name", io::last_part(base)}};
  const size_t slash = hub->id.find('/');
  const std::string name = hub->id.substr(slash + 1);
  const std::string parent = "general.base_model.0.";
  model::GgufMetadata names = {{"general.name", name},
                               {"general.base_model.count", uint64_t{1}},
                               {parent + "name", name},
                               {parent + "organization", hub->id.substr(0, slash)}};
  if (!hub->revision.empty()) names.emplace_back(parent + "version", hub->revision);
  names.emplace_back(parent + "repo_url", "https://huggingface.co/" + hub->id);
  return names;
}

}  // namespace qlora::exporting
