// For tests with tensors.
#include "aten.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
