// For tests without tensors.
#include "json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
