#include "distributed/group.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "base/device.h"
#include "base/profile.h"
#include "base/stop.h"
#include "base/stopwatch.h"
#include "distributed/engine.h"
#include "distributed/store_notes.h"

namespace qlora::distributed {
namespace {

// c10d's messages go on with the frames of its stack.
std::string first_line(const std::exception& error) {
  const auto* ours = dynamic_cast<const c10::Error*>(&error);
  const std::string text = ours != nullptr ? ours->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

// Rows added in pairs of neighbours, pairs of pairs, ...; the sum is in the first.
void add_rows(const at::Tensor& rows) {
  const int64_t count = rows.size(0);
  for (int64_t step = 1; step < count; step *= 2)
    for (int64_t i = 0; i + step < count; i += 2 * step) rows[i].add_(rows[i + step]);
}

// [ranks, part], in memory that is kept for the next time.
at::Tensor rows_in(at::Tensor& memory, const at::Tensor& numbers, int64_t ranks, int64_t part) {
  const auto bytes = ranks * part * static_cast<int64_t>(numbers.element_size());
  if (!memory.defined() || memory.numel() < bytes)
    memory = at::empty({bytes}, numbers.options().dtype(at::kByte));
  return memory.narrow(0, 0, bytes).view(numbers.scalar_type()).view({ranks, part});
}

// The first line of `text` that `other` does not have at that place.
std::string line_that_differs(const std::string& text, const std::string& other) {
  const auto [at, unused] = std::ranges::mismatch(text, other);
  const auto offset = static_cast<size_t>(at - text.begin());
  const size_t newline = offset == 0 ? std::string::npos : text.rfind('\n', offset - 1);
  const size_t begin = newline == std::string::npos ? 0 : newline + 1;
  const std::string line = text.substr(begin, text.find('\n', begin) - begin);
  return line.empty() ? "nothing" : line;
}

at::Tensor bytes_of(const at::Tensor& tensor) { return tensor.view({-1}).view(at::kByte); }

using Work = c10::intrusive_ptr<c10d::Work>;

constexpr char kWaiting[] = "waiting for the other ranks";

}  // namespace

// What sum() needs, as bytes.
struct Group::Buffers {
  at::Tensor parts, rows;
};

struct Group::Engines {
  Store store;
  Engine host;                // of tensors on the CPU
  std::optional<Engine> gpu;  // of those on a GPU, once there were any; null: through the host
  Buffers of_host, of_gpu;
  bool has_left = false;

  // Returns when all ranks have come to the store.
  void await_all(const Place& place, std::chrono::milliseconds patience);

  // Waits for what an engine is told to do.
  void finish(const Place& place, std::chrono::milliseconds patience,
              const std::function<Work()>& start) {
    call(place, patience, [&] { start()->wait(patience); });
  }
  // LostRank in place of an engine's errors.
  void call(const Place& place, std::chrono::milliseconds patience,
            const std::function<void()>& engine);
  // The others see that the connections are closed, and look for the reason. Who serves the store
  // stays until they have it.
  void leave(const Place& place);
  // Leaves as another rank did, if one has.
  void leave_if_told(const Place& place);
};

void Group::Engines::await_all(const Place& place, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kBetweenLooks(50);
  const Stopwatch watch;
  come(store);
  while (true) {
    const int64_t here = num_come(store);
    if (here >= place.size) return;
    leave_if_told(place);
    leave_if_stop_wanted();
    check(watch.seconds() < std::chrono::duration<double>(patience).count(),
          "{} of {} ranks have come", here, place.size);
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

void Group::Engines::leave(const Place& place) {
  has_left = true;
  host.reset();
  if (place.rank == 0 && !place.store_is_launchers) wait_for_readers(store);
}

void Group::Engines::leave_if_told(const Place& place) {
  const auto departure = read_departure(store);
  if (!departure) return;
  leave(place);
  if (departure->stopped) throw Stopped{departure->why, 0, 0, ""};
  throw LostRank(departure->why);
}

void Group::Engines::call(const Place& place, std::chrono::milliseconds patience,
                          const std::function<void()>& engine) {
  check(host.defined(), "rank {} of {} has left the group", place.rank, place.size);
  const Stopwatch watch;
  try {
    engine();
  } catch (const std::exception& error) {
    // Who is silent may have taken the way to the store along.
    const bool silent = watch.seconds() >= std::chrono::duration<double>(patience).count();
    if (!silent) leave_if_told(place);
    fail<LostRank>(
        "rank {} of {}: another rank is gone or silent ({}); go on from the last checkpoint with "
        "the same command",
        place.rank, place.size, first_line(error));
  }
}

Group::Group() = default;
Group::~Group() = default;
Group::Group(Group&&) noexcept = default;
Group& Group::operator=(Group&&) noexcept = default;

Group::Group(const Place& place, std::chrono::milliseconds patience)
    : place_(place), patience_(patience) {
  if (place.size == 1) return;
  // Gloo writes to the sockets of ranks that are gone: that is to fail, as LostRank, and not to end
  // this process, which is what SIGPIPE does where nobody has asked for anything else.
  std::signal(SIGPIPE, SIG_IGN);
  engines_ = std::make_unique<Engines>();
  try {
    engines_->store = open_store(place, patience);
    engines_->await_all(place, patience);
    engines_->host = gloo_engine(engines_->store, place, patience);
    meet();
  } catch (const ConfigError&) {
    throw;
  } catch (const Stopped& stopped) {
    const std::string phase = stopped.phase.empty() ? kWaiting : stopped.phase;
    stop_together(phase);
    throw Stopped{phase, 0, 0, ""};
  } catch (const std::exception& error) {
    if (stop_wanted()) {  // a signal interrupts what c10d waits for
      stop_together(kWaiting);
      throw Stopped{kWaiting, 0, 0, ""};
    }
    fail<LostRank>(
        "rank {} of {} did not meet the others at {}:{} (MASTER_ADDR, MASTER_PORT) within {} s: {}",
        place.rank, place.size, place.address, place.port, patience.count() / 1000,
        first_line(error));
  }
}

// NCCL where every rank of every machine has a GPU of its own.
bool Group::travels_alone(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return true;
  if (!engines_->gpu)
    engines_->gpu = any(place_.local_size > num_gpus())
                        ? Engine()
                        : nccl_engine(engines_->store, place_, patience_);
  return engines_->gpu->defined();
}

c10d::Backend& Group::engine_of(const at::Tensor& tensor) {
  return tensor.is_cpu() ? *engines_->host : **engines_->gpu;
}

void Group::sum(const at::Tensor& numbers) {
  if (!engines_ || numbers.numel() == 0) return;
  check(numbers.is_contiguous() &&
            (numbers.scalar_type() == at::kFloat || numbers.scalar_type() == at::kDouble),
        "Group::sum: the numbers must be contiguous, fp32 or fp64");
  const ProfileScope scope(kCommunication);
  const at::Tensor there = travels_alone(numbers) ? numbers : numbers.cpu();
  const at::Tensor flat = there.view({-1});
  for (int64_t begin = 0; begin < flat.numel(); begin += kNumbersAtOnce)
    sum_at_once(flat.narrow(0, begin, std::min(kNumbersAtOnce, flat.numel() - begin)));
  if (!there.is_same(numbers)) numbers.copy_(there);
}

void Group::sum_at_once(const at::Tensor& numbers) {
  const int64_t ranks = place_.size, part = (numbers.numel() + ranks - 1) / ranks;
  Buffers& buffers = numbers.is_cpu() ? engines_->of_host : engines_->of_gpu;
  at::Tensor parts = rows_in(buffers.parts, numbers, ranks, part);
  at::Tensor rows = rows_in(buffers.rows, numbers, ranks, part);
  const at::Tensor padded = parts.view({-1});
  const int64_t count = numbers.numel();
  padded.narrow(0, 0, count).copy_(numbers);
  padded.narrow(0, count, padded.numel() - count).zero_();
  // Rank r gets the rth part of every rank, adds, and gives the sum to all.
  std::vector<int64_t> equal;
  engines_->finish(place_, patience_,
                   [&] { return engine_of(numbers).alltoall_base(rows, parts, equal, equal); });
  add_rows(rows);
  at::Tensor own = rows.narrow(0, 0, 1);
  engines_->finish(place_, patience_,
                   [&] { return engine_of(numbers)._allgather_base(parts, own); });
  numbers.copy_(padded.narrow(0, 0, count));
}

void Group::broadcast(const at::Tensor& tensor, int from) {
  if (!engines_ || tensor.numel() == 0) return;
  check(tensor.is_contiguous(), "Group::broadcast: the tensor must be contiguous");
  if (!travels_alone(tensor)) {
    const at::Tensor on_host = tensor.cpu();
    broadcast(on_host, from);
    tensor.copy_(on_host);
    return;
  }
  // As bytes: the engines do not carry every dtype.
  std::vector<at::Tensor> tensors = {bytes_of(tensor)};
  c10d::BroadcastOptions options;
  options.rootRank = from;
  engines_->finish(place_, patience_,
                   [&] { return engine_of(tensor).broadcast(tensors, options); });
}

std::string Group::broadcast(const std::string& text, int from) {
  if (!engines_) return text;
  const at::Tensor length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  broadcast(length, from);
  const at::Tensor bytes = at::empty({length.item<int64_t>()}, at::kByte);
  if (place_.rank == from) std::copy(text.begin(), text.end(), bytes.mutable_data_ptr<uint8_t>());
  broadcast(bytes, from);
  const auto* begin = bytes.const_data_ptr<uint8_t>();
  return {begin, begin + bytes.numel()};
}

void Group::require_same(const std::string& what, const std::string& text) {
  if (!engines_) return;
  const std::string first = broadcast(text);
  const at::Tensor differs = at::zeros({place_.size}, at::kFloat);
  differs[place_.rank] = text == first ? 0 : 1;
  sum(differs);
  for (int rank = 0; rank < place_.size; ++rank) {
    if (differs[rank].item<float>() == 0) continue;
    const std::string odd = broadcast(text, rank);
    fail<ConfigError>(
        "the ranks of a run must agree on {}: rank {} has {}, rank 0 has {}; give every machine "
        "the same recipe, files and program",
        what, rank, line_that_differs(odd, first), line_that_differs(first, odd));
  }
}

Transfer Group::gather(const at::Tensor& shard, const at::Tensor& whole) {
  check(shard.is_contiguous() && whole.is_contiguous() && shard.device() == whole.device() &&
            whole.nbytes() == shard.nbytes() * static_cast<size_t>(place_.size),
        "Group::gather: {} bytes are not the shards of {} ranks, {} bytes each, contiguous and on "
        "one device",
        whole.nbytes(), place_.size, shard.nbytes());
  if (shard.numel() == 0) return {};
  at::Tensor part = bytes_of(shard), all = bytes_of(whole);
  if (!engines_) {
    all.copy_(part);
    return {};
  }
  if (!travels_alone(shard)) {
    const at::Tensor on_host = at::empty(all.sizes(), at::kByte);
    return Transfer([transfer = gather(part.cpu(), on_host), all, on_host]() mutable {
      transfer.wait();
      all.copy_(on_host);
    });
  }
  Engines* engines = engines_.get();
  Work work;
  engines->call(place_, patience_, [&] { work = engine_of(shard)._allgather_base(all, part); });
  return Transfer([engines, place = place_, patience = patience_, work] {
    const ProfileScope scope(kCommunication);
    engines->call(place, patience, [&] { work->wait(patience); });
  });
}

bool Group::any(bool here) {
  if (!engines_) return here;
  const at::Tensor count = at::full({1}, here ? 1.0 : 0.0, at::kFloat);
  sum(count);
  return count.item<float>() > 0;
}

void Group::meet() {
  if (!engines_) return;
  engines_->finish(place_, patience_, [&] { return engines_->host->barrier(); });
}

void Group::leave_with(const std::string& why, bool stopped) noexcept {
  if (!engines_ || !engines_->store.defined() || engines_->has_left) return;
  leave_departure(engines_->store, {why, stopped});
  engines_->leave(place_);
}

void Group::fail_together(const std::string& why) noexcept {
  leave_with(fmt::format("rank {} failed: {}", place_.rank, why), /*stopped=*/false);
}

void Group::stop_together(const std::string& phase) noexcept {
  leave_with(fmt::format("with rank {}: {}", place_.rank, phase), /*stopped=*/true);
}

}  // namespace qlora::distributed
