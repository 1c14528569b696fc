// Models that the Hugging Face tools have downloaded already. The program itself never downloads.
#pragma once

#include <optional>
#include <string>

namespace qlora::model {

// An existing path as it is; "org/name" or "org/name@revision" as the directory of its snapshot in
// the local cache: HF_HUB_CACHE (HUGGINGFACE_HUB_CACHE in older tools), else HF_HOME/hub, else
// XDG_CACHE_HOME/huggingface/hub, else
// ~/.cache/huggingface/hub. ConfigError with the command that downloads it if it is not there.
std::string resolve_model_path(const std::string& path_or_id);
// The same; nothing if it is not there.
std::optional<std::string> find_model(const std::string& path_or_id);

}  // namespace qlora::model
