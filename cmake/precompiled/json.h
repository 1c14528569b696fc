// For files that build or read JSON values.
#include "standard.h"

#include <nlohmann/json.hpp>
