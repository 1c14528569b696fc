// Ids of pieces that were encoded before: text repeats its words, so most pieces are found here.
//
// A cache belongs to one thread at a time; the pool lends one per call, so that threads share a
// tokenizer without waiting for each other.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::data {

class WordCache {
 public:
  static constexpr size_t kMostWords = size_t{1} << 16;
  static constexpr size_t kLongestWord = 128;  // bytes; longer pieces hardly come again

  // Null if the word is not here.
  const std::vector<TokenId>* find(std::string_view word) const {
    const auto entry = words_.find(word);
    return entry == words_.end() ? nullptr : &entry->second;
  }

  // A full cache starts anew: text drifts, and what is frequent is back at once.
  void insert(std::string_view word, std::vector<TokenId> ids) {
    if (word.size() > kLongestWord) return;
    if (words_.size() >= kMostWords) words_.clear();
    words_.emplace(word, std::move(ids));
  }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, std::vector<TokenId>, Hash, std::equal_to<>> words_;
};

class WordCachePool {
 public:
  class Lease {
   public:
    explicit Lease(WordCachePool& pool) : pool_(pool), cache_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(cache_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    WordCache& operator*() const { return *cache_; }

   private:
    WordCachePool& pool_;
    std::unique_ptr<WordCache> cache_;
  };

 private:
  std::unique_ptr<WordCache> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<WordCache>();
    auto cache = std::move(idle_.back());
    idle_.pop_back();
    return cache;
  }
  void give_back(std::unique_ptr<WordCache> cache) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(cache));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<WordCache>> idle_;
};

}  // namespace qlora::data
