// Builds the tree of a template.
#pragma once

#include "data/jinja/nodes.h"
#include "data/jinja/source.h"

namespace qlora::data::jinja {

// FormatError, with the place, if the source is no template or uses what is not supported here
// (templates that include others).
Tree parse(const Source& source);

}  // namespace qlora::data::jinja
