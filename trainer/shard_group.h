// The ranks of a run as those that keep its base together (model.device_map: ranks).
#pragma once

#include <memory>

#include "distributed/group.h"
#include "quant/offload/shard_group.h"

namespace qlora::trainer {

// Null for one rank, which has all by itself.
std::shared_ptr<quant::ShardGroup> shard_group(std::shared_ptr<distributed::Group> group);

}  // namespace qlora::trainer
