// A family of architectures: how its config.json, or the metadata of its GGUF files, becomes the
// description that everything else reads (model/architecture.h). A new family is one file here, its
// function's declaration in families.h and a line in family.cpp.
#pragma once

#include <string>
#include <vector>

#include "model/architecture.h"
#include "model/families/config_reader.h"
#include "model/families/config_writer.h"

namespace qlora::model {

struct Family {
  std::string name;                                  // "llama"
  std::vector<std::string> model_types;              // of config.json
  std::vector<std::string> gguf_architectures = {};  // empty: there are no GGUF files of it
  // FormatError naming file and key.
  Architecture (*read)(ConfigReader& config) = nullptr;
  // config.json of a model that came from a GGUF file, for transformers (hugging_face_config.h).
  // Null: nobody has written it.
  void (*write)(ConfigWriter& config, const Architecture& architecture) = nullptr;
  // The GGUF architecture its models are written as, where no files are read as the family's own:
  // Mistral's are Llama's. Empty: the first of gguf_architectures, or none.
  std::string gguf_written_as = {};
};

// All, in the order in which they are listed.
const std::vector<Family>& families();

// FormatError that lists the known ones.
const Family& family_of_model_type(const std::string& model_type, const std::string& place);
const Family& family_of_gguf(const std::string& architecture, const std::string& place);
const Family& family_named(const std::string& name);

// The description of a config.json, or of a GGUF file, by its family; keys that nobody read are
// warned of.
Architecture read_architecture(const io::JsonNode& config);
Architecture read_architecture(const io::GgufFile& file);

}  // namespace qlora::model
