// A small map from texts that keeps the order in which its keys were written: where the first key
// that matches decides.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace qlora {

template <typename Value>
class OrderedMap {
 public:
  using value_type = std::pair<std::string, Value>;
  using iterator = typename std::vector<value_type>::iterator;
  using const_iterator = typename std::vector<value_type>::const_iterator;

  OrderedMap() = default;
  // Of a key that stands twice the first counts.
  OrderedMap(std::initializer_list<value_type> entries) {
    for (const value_type& entry : entries) try_emplace(entry.first, entry.second);
  }

  iterator begin() { return entries_.begin(); }
  iterator end() { return entries_.end(); }
  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }
  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  void clear() { entries_.clear(); }

  iterator find(const std::string& key) {
    return std::ranges::find(entries_, key, &value_type::first);
  }
  const_iterator find(const std::string& key) const {
    return std::ranges::find(entries_, key, &value_type::first);
  }
  bool contains(const std::string& key) const { return find(key) != end(); }

  // A new key comes last; one that is there already stays what it was.
  std::pair<iterator, bool> try_emplace(const std::string& key, Value value) {
    if (const iterator found = find(key); found != end()) return {found, false};
    entries_.emplace_back(key, std::move(value));
    return {end() - 1, true};
  }
  Value& operator[](const std::string& key) { return try_emplace(key, Value{}).first->second; }
  // Comes before all others, wherever it was.
  void put_first(const std::string& key, Value value) {
    std::erase_if(entries_, [&](const value_type& entry) { return entry.first == key; });
    entries_.emplace(entries_.begin(), key, std::move(value));
  }

  // In the same order.
  bool operator==(const OrderedMap&) const = default;

 private:
  std::vector<value_type> entries_;
};

// Whether two maps of which the first key that matches decides come to the same: they have the same
// entries, and where two of them have changed places, these have one value or never match
// together: are_disjoint(key, other).
template <typename Value, typename AreDisjoint>
bool decide_alike(const OrderedMap<Value>& before, const OrderedMap<Value>& now,
                  const AreDisjoint& are_disjoint) {
  if (before.size() != now.size()) return false;
  for (auto first = before.begin(); first != before.end(); ++first) {
    const auto place = now.find(first->first);
    if (place == now.end() || place->second != first->second) return false;
    for (auto second = before.begin(); second != first; ++second)
      if (now.find(second->first) > place && second->second != first->second &&
          !are_disjoint(first->first, second->first))
        return false;
  }
  return true;
}

}  // namespace qlora
