// Chat templates in Go's template language, as Ollama reads them.
#pragma once

#include <string>

#include "export/conversation_form.h"

namespace qlora::exporting {

// Renders .Messages as `form` says, of which each has a .Role and a .Content. Messages of other
// roles than system, user and assistant are left out, unless all roles are written alike. Ollama
// puts form.default_system in front itself, where the Modelfile has it as SYSTEM.
std::string go_template(const ConversationForm& form);

}  // namespace qlora::exporting
