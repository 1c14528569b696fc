#include "data/readers/tool_calls.h"

#include <utility>

#include "base/error.h"
#include "data/exact_json.h"

namespace qlora::data {
namespace {

// JSON that may be written in a string; the string itself if that is no object and no array.
Json unpacked(const Json& value) {
  if (!value.is_string()) return value;
  Json parsed = exact_json_or_discarded(value.get<std::string>());
  return parsed.is_structured() ? parsed : value;
}

bool is_blank(const Json& value) {
  return value.is_null() || (value.is_string() && value.get<std::string>().find_first_not_of(
                                                      " \t\r\n") == std::string::npos);
}

bool names_function(const Json& call) {
  return call.is_object() && call.contains("name") && call["name"].is_string();
}

// {"id", "type", "function": {"name", "arguments"}} of any form of one call.
Json normal_call(const Json& given, size_t index) {
  Json call = unpacked(given);
  if (!call.is_object()) {
    fail<FormatError>("a tool call of message {} must be an object, found {}", index,
                      describe_type(call));
  }
  if (!call.contains("function")) {
    Json function = Json::object();
    for (const char* key : {"name", "arguments"}) {
      if (!call.contains(key)) continue;
      function[key] = call[key];
      call.erase(key);
    }
    if (!call.contains("type")) call["type"] = "function";
    call["function"] = std::move(function);
  }
  Json& function = call["function"];
  if (!names_function(function)) {
    fail<FormatError>(
        "a tool call of message {} must name its function, like {{\"function\": {{\"name\": "
        "\"...\", \"arguments\": {{...}}}}}}, found {}",
        index, shown(given));
  }
  if (!function.contains("arguments") || is_blank(function["arguments"]))
    function["arguments"] = Json::object();
  Json arguments = unpacked(function["arguments"]);
  if (arguments.is_object()) function["arguments"] = std::move(arguments);
  return call;
}

bool has_calls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && !is_blank(*calls) && !(calls->is_array() && calls->empty());
}

// OpenAI's function_call, of before there were tools.
void take_function_call(Json& message, size_t index) {
  const auto call = message.find("function_call");
  if (call == message.end()) return;
  if (!is_blank(*call)) {
    if (has_calls(message)) {
      fail<FormatError>("message {} has both function_call and tool_calls; remove one", index);
    }
    message["tool_calls"] = Json::array({unpacked(*call)});
  }
  message.erase("function_call");
}

}  // namespace

void normalize_tool_calls(Json& message, size_t index) {
  if (message["role"] == "function") message["role"] = "tool";
  take_function_call(message, index);
  if (!has_calls(message)) {
    message.erase("tool_calls");  // templates ask whether it is there, not whether it holds any
    return;
  }
  const Json calls = unpacked(message["tool_calls"]);
  if (!calls.is_array()) {
    fail<FormatError>("tool_calls of message {} must be an array, found {}", index,
                      describe_type(calls));
  }
  Json normal = Json::array();
  for (const Json& call : calls) normal.push_back(normal_call(call, index));
  message["tool_calls"] = std::move(normal);
}

Json message_of_call(const Json& value, size_t index) {
  const Json unpacked_value = unpacked(value);
  Json calls = Json::array();
  if (unpacked_value.is_array()) calls = unpacked_value;
  if (unpacked_value.is_object()) calls.push_back(unpacked_value);
  bool all_named = !calls.empty();
  for (const Json& call : calls)
    all_named &= names_function(call) || (call.is_object() && call.contains("function") &&
                                          names_function(call["function"]));
  if (!all_named) {
    fail<FormatError>(
        "message {} is a call of a function, so its text must be JSON like {{\"name\": ..., "
        "\"arguments\": {{...}}}}, found {}",
        index, shown(value));
  }
  return Json{{"role", "assistant"}, {"content", ""}, {"tool_calls", std::move(calls)}};
}

Json parse_tools(const Json& tools) {
  if (is_blank(tools)) return nullptr;
  Json parsed = unpacked(tools);
  if (names_function(parsed) || (parsed.is_object() && parsed.contains("function")))
    parsed = Json::array({parsed});
  if (!parsed.is_array()) {
    fail<FormatError>("tools must be an array of function descriptions, found {}",
                      parsed.is_string() ? "a string that is not JSON" : describe_type(parsed));
  }
  if (parsed.empty()) return nullptr;
  for (size_t i = 0; i < parsed.size(); ++i) {
    parsed[i] = unpacked(parsed[i]);
    if (!parsed[i].is_object()) {
      fail<FormatError>("tool {} of tools must be an object that describes a function, found {}", i,
                        describe_type(parsed[i]));
    }
  }
  return parsed;
}

}  // namespace qlora::data
