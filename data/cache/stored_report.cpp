#include "data/cache/stored_report.h"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"

namespace qlora::data {
namespace {

using Report = DatasetReport;

constexpr std::pair<const char*, int64_t Report::*> kNumbers[] = {
    {"files", &Report::files},
    {"rows", &Report::rows},
    {"rendered", &Report::rendered},
    {"filtered", &Report::filtered},
    {"dropped_overlength", &Report::dropped_overlength},
    {"truncated", &Report::truncated},
    {"split", &Report::split},
    {"pieces", &Report::pieces},
    {"dropped_unsupervised", &Report::dropped_unsupervised},
    {"examples", &Report::examples},
    {"tokens", &Report::tokens},
    {"supervised_tokens", &Report::supervised_tokens},
    {"longest", &Report::longest},
    {"longest_row", &Report::longest_row},
    {"end_of_turns", &Report::end_of_turns},
    {"double_bos", &Report::double_bos},
    {"tools_unwritten", &Report::tools_unwritten},
    {"marks_overruled", &Report::marks_overruled},
    {"marks_ignored", &Report::marks_ignored},
    {"others_compared", &Report::others_compared},
    {"run_together", &Report::run_together},
};

constexpr std::pair<const char*, std::map<std::string, std::string> Report::*> kMaps[] = {
    {"unread_keys", &Report::unread_keys},
    {"absent_fields", &Report::absent_fields},
};

int64_t any_integer(const io::JsonNode& node) {
  return node.as_integer(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
}

}  // namespace

nlohmann::ordered_json stored_report(const DatasetReport& report) {
  nlohmann::ordered_json stored = {{"has_turns", report.has_turns},
                                   {"has_pairs", report.has_pairs},
                                   {"ends_early", report.ends_early},
                                   {"end_of_turn_ids", report.end_of_turn_ids}};
  for (const auto& [name, member] : kNumbers) stored[name] = report.*member;
  for (const auto& [name, member] : kMaps) {
    stored[name] = nlohmann::ordered_json::array();
    for (const auto& [key, value] : report.*member)
      stored[name].push_back(nlohmann::ordered_json::array({key, value}));
  }
  return stored;
}

DatasetReport report_from(const io::JsonNode& stored) {
  DatasetReport report;
  report.has_turns = stored.at("has_turns").as_bool();
  report.has_pairs = stored.at("has_pairs").as_bool();
  report.ends_early = stored.at("ends_early").as_bool();
  for (const io::JsonNode& id : stored.at("end_of_turn_ids").elements())
    report.end_of_turn_ids.insert(
        static_cast<TokenId>(id.as_integer(0, std::numeric_limits<TokenId>::max())));
  for (const auto& [name, member] : kNumbers) report.*member = any_integer(stored.at(name));
  for (const auto& [name, member] : kMaps)
    for (const io::JsonNode& entry : stored.at(name).elements()) {
      const auto pair = entry.elements();
      if (pair.size() != 2) entry.reject("two strings");
      (report.*member).emplace(pair[0].as_string(), pair[1].as_string());
    }
  return report;
}

}  // namespace qlora::data
