#include "trainer/shard_group.h"

#include <utility>

namespace qlora::trainer {
namespace {

class RanksOfRun final : public quant::ShardGroup {
 public:
  explicit RanksOfRun(std::shared_ptr<distributed::Group> group) : group_(std::move(group)) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::function<void()> gather(const at::Tensor& shard, const at::Tensor& whole) override {
    return [transfer = group_->gather(shard, whole)]() mutable { transfer.wait(); };
  }

 private:
  std::shared_ptr<distributed::Group> group_;
};

}  // namespace

std::shared_ptr<quant::ShardGroup> shard_group(std::shared_ptr<distributed::Group> group) {
  if (group->size() == 1) return nullptr;
  return std::make_shared<RanksOfRun>(std::move(group));
}

}  // namespace qlora::trainer
