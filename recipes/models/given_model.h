// What RUN_DIR, --model and --adapter name, of commands that have no recipe: errors speak of these.
#pragma once

#include <string>

namespace qlora::recipes {

// ConfigError if RUN_DIR is a model or an adapter, which would only be said to be no run: which
// names the options to give it by.
void require_given_run(const std::string& run_dir);

// ConfigError if the model is not there, or one of the two is a run's own directory, or the model a
// checkpoint's: which names what to write. `adapter` may be empty.
void require_given_model(const std::string& model, const std::string& adapter);

// Where the weights lie of a model that is to be written anew in another form. ConfigError if it is
// not there, or is a run.
std::string path_of_given_model(const std::string& model);

}  // namespace qlora::recipes
