#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "data/jinja/containers.h"
#include "data/jinja/filters.h"
#include "data/jinja/letter_case.h"
#include "data/jinja/operators.h"
#include "data/jinja/runtime.h"
#include "data/jinja/split.h"

namespace qlora::data::jinja::filters {
namespace {

// A pair with names, as groupby gives.
class Group : public List {
 public:
  Group(Value grouper, Value members) : List({std::move(grouper), std::move(members)}, true) {}
  std::optional<Value> attribute(Runtime&, std::string_view name) override {
    if (name == "grouper") return items()[0];
    return name == "list" ? std::optional(items()[1]) : std::nullopt;
  }
};

// What an item is compared by: upper and lower case are the same unless told apart.
Value without_case(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_text()) return value;
  runtime.charge(value.bytes().size() / 4);
  return runtime.text(lower_case(value.bytes()));
}

struct Keyed {
  Value key, item;
};

// The items in the order of their keys. Equal ones stay in order also downwards, as in Python.
std::vector<Keyed> sorted_by_key(Runtime& runtime, const std::vector<Keyed>& items, bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (reverse) std::swap(a, b);
    return compare(runtime, items[a].key, items[b].key, "<") < 0;
  });
  std::vector<Keyed> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

Values items_of(const std::vector<Keyed>& keyed) {
  Values items;
  for (const Keyed& one : keyed) items.push_back(one.item);
  return items;
}

// attribute="a,b" sorts by a, then by b.
Value sort_key(Runtime& runtime, const Value& item, const Value& attribute, bool case_sensitive) {
  if (!attribute.is_text() || attribute.bytes().find(',') == std::string::npos) {
    return without_case(runtime, part_of(runtime, item, attribute), case_sensitive);
  }
  Values keys;
  for (const std::string_view name : split_at(attribute.bytes(), ",", -1, false)) {
    const Value path = runtime.text(std::string(name));
    keys.push_back(without_case(runtime, part_of(runtime, item, path), case_sensitive));
  }
  return runtime.list(std::move(keys));
}

Value extreme(Runtime& runtime, const Value& value, const Arguments& arguments, bool largest) {
  const Parameters given(largest ? "max" : "min", {"case_sensitive", "attribute"}, arguments);
  const bool case_sensitive = given.truth(runtime, 0, false);
  std::optional<Keyed> best;
  for (const Value& item : collect(runtime, value)) {
    const Value key = without_case(runtime, part_of(runtime, item, given[1]), case_sensitive);
    const bool better = !best || (largest ? compare(runtime, key, best->key, ">") > 0
                                          : compare(runtime, key, best->key, "<") < 0);
    if (better) best = Keyed{key, item};
  }
  if (!best) return Value::undefined("No aggregated item, sequence was empty.");
  return best->item;
}

}  // namespace

Value min(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return extreme(runtime, value, arguments, false);
}

Value max(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return extreme(runtime, value, arguments, true);
}

Value sort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("sort", {"reverse", "case_sensitive", "attribute"}, arguments);
  const bool case_sensitive = given.truth(runtime, 1, false);
  std::vector<Keyed> keyed;
  for (const Value& item : collect(runtime, value)) {
    keyed.push_back({sort_key(runtime, item, given[2], case_sensitive), item});
  }
  return runtime.list(items_of(sorted_by_key(runtime, keyed, given.truth(runtime, 0, false))));
}

Value dictsort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("dictsort", {"case_sensitive", "by", "reverse"}, arguments);
  if (value.is_undefined()) throw Failure(value.undefined_message());
  Dict* dict = value.as<Dict>();
  if (!dict) fail_render("dictsort needs a dict, not {}", value.type_name());
  const std::string by = given.text(1, "key");
  if (by != "key" && by != "value") fail_render("You can only sort by either \"key\" or \"value\"");
  const bool case_sensitive = given.truth(runtime, 0, false);
  std::vector<Keyed> keyed;
  for (const auto& [key, held] : dict->entries()) {
    const Value& compared = by == "key" ? key : held;
    keyed.push_back({without_case(runtime, compared, case_sensitive), runtime.tuple({key, held})});
  }
  return runtime.list(items_of(sorted_by_key(runtime, keyed, given.truth(runtime, 2, false))));
}

Value unique(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("unique", {"case_sensitive", "attribute"}, arguments);
  const bool case_sensitive = given.truth(runtime, 0, false);
  std::unordered_set<std::string> seen;
  Values kept;
  for (const Value& item : collect(runtime, value)) {
    runtime.charge(4);
    const Value key = without_case(runtime, part_of(runtime, item, given[1]), case_sensitive);
    if (seen.insert(hash_key(runtime, key)).second) kept.push_back(item);
  }
  return runtime.generator(std::move(kept));
}

// Pairs of a key and the list of the items that have it, sorted by key.
Value groupby(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given("groupby", {"attribute", "default", "case_sensitive"}, arguments);
  given.required(0);
  const bool case_sensitive = given.truth(runtime, 2, false);
  std::vector<Keyed> keyed;
  for (const Value& item : collect(runtime, value)) {
    const Value part = part_of(runtime, item, given[0], given[1]);
    keyed.push_back({without_case(runtime, part, case_sensitive), item});
  }
  keyed = sorted_by_key(runtime, keyed, false);
  Values groups;
  for (size_t begin = 0; begin < keyed.size();) {
    size_t end = begin + 1;
    Values members = {keyed[begin].item};
    while (end < keyed.size() && equal(runtime, keyed[end].key, keyed[begin].key)) {
      members.push_back(keyed[end++].item);
    }
    // Case that was ignored comes back from the first member.
    const Value name = part_of(runtime, members.front(), given[0], given[1]);
    groups.push_back(runtime.make<Group>(name, runtime.list(std::move(members))));
    begin = end;
  }
  return runtime.list(std::move(groups));
}

}  // namespace qlora::data::jinja::filters
