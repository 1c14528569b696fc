// What the keys of a row decide beside its texts: which turns are trained, that it is preference
// data, and which keys nothing reads.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/readers/conversation.h"
#include "data/readers/reader.h"
#include "data/readers/unread_keys.h"

namespace qlora::data {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Record read(const std::string& format, const char* json,
            std::map<std::string, std::string> fields = {}) {
  const Json row = Json::parse(json);
  const DatasetOptions dataset{"file.jsonl", format, std::move(fields)};
  return find_format(format).read(Row(row, dataset), {});
}

std::string error(const std::string& format, const char* json) {
  try {
    read(format, json);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

// Which of two answers are trained; the first carries the marks.
std::string trained_turns(const std::string& format, const std::string& marks,
                          const std::string& row_keys = "") {
  const bool chat = format == "chat";
  const std::string role = chat ? "role" : "from", content = chat ? "content" : "value";
  const auto turn = [&](const std::string& who, const std::string& text, const std::string& more) {
    return "{\"" + role + "\": \"" + who + "\", \"" + content + "\": \"" + text + "\"" + more + "}";
  };
  const std::string user = chat ? "user" : "human", assistant = chat ? "assistant" : "gpt";
  const std::string json = "{\"" + std::string(chat ? "messages" : "conversations") + "\": [" +
                           turn(user, "q", "") + ", " + turn(assistant, "first", marks) + ", " +
                           turn(user, "q", "") + ", " + turn(assistant, "second", "") + "]" +
                           row_keys + "}";
  try {
    const auto conversation = std::get<Conversation>(read(format, json.c_str()));
    std::string trained;
    for (const Json& message : conversation.messages)
      if (is_trained_turn(message)) trained += message["content"].get<std::string>() + ".";
    return trained;
  } catch (const FormatError& e) {
    return e.what();
  }
}

TEST(TurnMarks, EveryToolsWordForContextOnlyIsHonoured) {
  for (const char* format : {"chat", "sharegpt"}) {
    for (const char* key : {"weight", "train", "training", "trainable", "loss", "loss_mask"})
      for (const auto& [value, trained] :
           {std::pair{"0", false}, {"1", true}, {"false", false}, {"true", true}, {"null", true}})
        EXPECT_EQ(trained_turns(format, std::string(", \"") + key + "\": " + value),
                  trained ? "first.second." : "second.")
            << format << " " << key << " " << value;
    EXPECT_EQ(trained_turns(format, R"(, "masked": true)"), "second.");
    EXPECT_EQ(trained_turns(format, R"(, "masked": false)"), "first.second.");
    EXPECT_EQ(trained_turns(format, R"(, "masked": true, "weight": 0)"), "second.");
    EXPECT_EQ(trained_turns(format, "", R"(, "loss_mask": [0, 0, 0, 1])"), "second.");
    EXPECT_EQ(trained_turns(format, "", R"(, "loss_mask": [false, true, false, false])"), "first.");
    EXPECT_EQ(trained_turns(format, "", R"(, "system": "s", "loss_mask": [0, 0, 0, 1])"),
              "second.");
  }
}

TEST(TurnMarks, OnesThatSayNothingOrContradictEachOtherAreErrors) {
  EXPECT_THAT(trained_turns("chat", R"(, "train": "no")"),
              HasSubstr("the train of message 1 must be 0 or 1, or false or true, found \"no\""));
  EXPECT_THAT(trained_turns("chat", R"(, "weight": 0.5)"), HasSubstr("found 0.5"));
  EXPECT_THAT(trained_turns("chat", R"(, "masked": true, "train": true)"),
              HasSubstr("train is true, masked is true"));
  EXPECT_THAT(trained_turns("chat", "", R"(, "loss_mask": [0, 1])"),
              HasSubstr("an entry for each of the 4 messages, found 2 entries"));
  EXPECT_THAT(trained_turns("chat", "", R"(, "loss_mask": 1)"), HasSubstr("found a number"));
  EXPECT_THAT(trained_turns("chat", R"(, "loss_mask": 1)", R"(, "loss_mask": [0, 0, 0, 1])"),
              HasSubstr("the row's loss_mask is 0 for message 1, the message's own is 1"));
  EXPECT_THAT(trained_turns("chat", "", R"(, "loss_mask": [0, 0, 0, 0])"),
              HasSubstr("all are marked as context only"));
}

// Which of two answers are trained, the first of which has these keys and parts.
std::string trained_parts(const std::string& keys, const std::string& parts) {
  const std::string json = R"({"messages": [{"role": "user", "content": "q"}, )"
                           R"({"role": "assistant")" +
                           keys + R"(, "content": [)" + parts +
                           R"(]}, {"role": "user", "content": "r"}, )"
                           R"({"role": "assistant", "content": "second"}]})";
  try {
    const auto conversation = std::get<Conversation>(read("chat", json.c_str()));
    std::string trained;
    for (const Json& message : conversation.messages)
      if (is_trained_turn(message)) trained += message["content"].get<std::string>() + ".";
    return trained;
  } catch (const FormatError& e) {
    return e.what();
  }
}

std::string part(const std::string& text, const std::string& keys) {
  return R"({"type": "text", "text": ")" + text + "\"" + keys + "}";
}

TEST(TurnMarks, ThoseOfAllPartsOfAContentAreTheMessages) {
  for (const char* mark : {R"(, "train": false)", R"(, "weight": 0)", R"(, "masked": true)"}) {
    EXPECT_EQ(trained_parts("", part("first", mark)), "second.") << mark;
    EXPECT_EQ(trained_parts("", part("fir", mark) + ", " + part("st", mark)), "second.") << mark;
    EXPECT_EQ(trained_parts(R"(, "loss": 0)", part("fir", mark) + ", " + part("st", "")), "second.")
        << mark;
  }
  const std::string trained = R"(, "train": true)";
  EXPECT_EQ(trained_parts("", part("fir", trained) + ", " + part("st", "")), "first.second.");
  EXPECT_EQ(trained_parts("", part("fir", R"(, "train": null)") + ", " + part("st", "")),
            "first.second.");
}

TEST(TurnMarks, AMessageThatWouldBeTrainedInPartIsRefusedByThePart) {
  const std::string out = R"(, "train": false)", in = R"(, "train": true)";
  EXPECT_THAT(trained_parts("", part("Secret ", out) + ", " + part("word", "")),
              HasSubstr("by the marks of message 1 its part 1 is trained, unlike the rest"));
  EXPECT_THAT(trained_parts("", part("word", "") + ", " + part("Secret", R"(, "weight": 0)")),
              HasSubstr("its part 1 is context only, unlike the rest"));
  EXPECT_THAT(trained_parts(R"(, "weight": 0)", part("word", in)),
              HasSubstr("its part 0 is trained"));
  EXPECT_THAT(trained_parts("", part("word", R"(, "weight": 0.5)")),
              HasSubstr("the weight of part 0 of message 1 must be 0 or 1"));
  EXPECT_THAT(error("chat", R"({"messages": [{"role": "user", "content": [)"
                            R"({"type": "text", "text": "a", "train": true},)"
                            R"( {"type": "text", "text": "b"}]},)"
                            R"( {"role": "assistant", "content": "c"}]})"),
              HasSubstr("by the marks of message 0 its part 1 is context only"));
}

TEST(Preference, RowsAreRefusedByTheirKeysInThoseWords) {
  const auto refused = [](const char* format, const char* json, const char* keys) {
    EXPECT_THAT(error(format, json), AllOf(HasSubstr("this is preference data"), HasSubstr(keys),
                                           HasSubstr("trains on demonstrations only")))
        << json;
  };
  const char* turns =
      R"("messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},)"
      R"( {"role": "user", "content": "r"}])";
  const auto row = [](const std::string& inside) { return "{" + inside + "}"; };
  refused("chat", row(std::string(turns) + R"(, "chosen": "c", "rejected": "d")").c_str(),
          "by its keys chosen, rejected");
  refused("chat",
          R"({"messages": [{"role": "user", "content": "q"}], "chosen": "c", "rejected": "d"})",
          "chosen, rejected");
  refused("chat",
          R"({"chosen": [{"role": "user", "content": "q"}], "rejected": [], "margin": 0.5})",
          "chosen, rejected, margin");
  refused("alpaca", R"({"instruction": "i", "output": "o", "rejected": "d"})", "rejected");
  refused("completion",
          R"({"prompt": "p", "chosen_response": "c", "rejected_response": "d",)"
          R"( "score_chosen": 1})",
          "chosen_response, rejected_response, score_chosen");
  refused("completion", R"({"prompt": "p", "completion": "c", "label": false})",
          "by its key label");
  refused("completion", R"({"prompt": "p", "completion": "c", "label": true})", "label");
  refused("chat", row(std::string(turns) + R"(, "label": false)").c_str(), "label");
  refused("sharegpt", R"({"conversations": [], "kto_tag": true})", "kto_tag");
  refused("completion", R"({"prompt": "p", "response_0": "a", "response_1": "b", "better": 1})",
          "response_0, response_1");
  refused("alpaca", R"({"instruction": "i", "output_1": "a", "output_2": "b", "preference": 2})",
          "output_1, output_2");
  refused("completion", R"({"prompt": "p", "completions": ["a", "b"], "scores": [1, 0]})",
          "completions, scores");
}

TEST(Preference, AVerdictIsOneHoweverItIsWritten) {
  const char* kTurns =
      R"("messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a")";
  for (const char* value :
       {"true", "false", "0", "1", "1.0", R"("True")", R"("false")", R"(" 0 ")"})
    for (const char* key : {"label", "desirable", "is_desirable", "accepted", "thumbs_up"}) {
      const std::string verdict = fmt::format(R"(, "{}": {}}})", key, value);
      for (const auto& [format, begin] :
           {std::pair{"completion", std::string(R"({"prompt": "p", "completion": "c")")},
            {"alpaca", R"({"instruction": "i", "output": "o")"},
            {"chat", "{" + std::string(kTurns) + "}]"}})
        EXPECT_THAT(error(format, (begin + verdict).c_str()),
                    HasSubstr(std::string("by its key ") + key))
            << format << verdict;
      EXPECT_THAT(error("chat", ("{" + std::string(kTurns) + verdict + "]}").c_str()),
                  HasSubstr(std::string("by its key messages[].") + key));
    }
  EXPECT_THAT(error("chat", ("{" + std::string(kTurns) + R"(, "kto_tag": false}]})").c_str()),
              HasSubstr("by its key messages[].kto_tag"));
  for (const char* other : {"2", "0.5", R"("positive")", "null", "[0]"})
    EXPECT_EQ(
        error("completion",
              fmt::format(R"({{"prompt": "p", "completion": "c", "label": {}}})", other).c_str()),
        "no error")
        << other;
}

TEST(Preference, ARejectedAnswerAloneIsEnoughAndAnswersHaveManyNames) {
  const std::string turns =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], )";
  for (const char* key : {"rejected_response", "rejected_messages", "rejected_images"})
    EXPECT_THAT(error("chat", (turns + "\"" + key + R"(": ["b"]})").c_str()),
                HasSubstr(std::string("by its key ") + key));
  EXPECT_EQ(error("chat", (turns + R"("num_rejected": 2})").c_str()), "no error");
  for (const auto& [better, worse] :
       {std::pair{"winner", "loser"}, {"pos", "neg"}, {"preferred", "dispreferred"}})
    EXPECT_THAT(
        error("completion",
              fmt::format(R"({{"prompt": "p", "{}": "a", "{}": "b"}})", better, worse).c_str()),
        AllOf(HasSubstr(fmt::format("by its keys {}, {}:", better, worse)),
              HasSubstr(fmt::format("fields: {{chosen: {}, rejected: {}}}", better, worse))));
}

TEST(Preference, OpenAisRowsAreNamedInEveryFormat) {
  const char* row = R"({"input": {"messages": [{"role": "user", "content": "q"}], "tools": []},)"
                    R"( "preferred_output": [{"role": "assistant", "content": "a"}],)"
                    R"( "non_preferred_output": [{"role": "assistant", "content": "b"}]})";
  for (const char* format : {"chat", "input_output"})
    EXPECT_THAT(error(format, row), AllOf(HasSubstr("preferred_output, non_preferred_output"),
                                          HasSubstr("the messages of 'input'")));
  EXPECT_THAT(error("preference", row), AllOf(HasSubstr("this is OpenAI's form"),
                                              HasSubstr("the messages of 'input' being the prompt"),
                                              Not(HasSubstr("in its member"))));
}

TEST(Preference, FormatPreferenceSendsNoOneToAFormatThatRefuses) {
  const char* turns =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], )";
  const auto advised = [](const std::string& row) { return error("preference", row.c_str()); };
  EXPECT_THAT(advised(R"({"prompt": "p", "completion": "c", "label": true})"),
              AllOf(HasSubstr("one answer with a verdict (label) is no pair"),
                    Not(HasSubstr("set format: completion"))));
  for (const char* rejected : {R"("rejected": "b"})", R"("rejected_response": "b"})"})
    EXPECT_THAT(advised(turns + std::string(rejected)),
                AllOf(HasSubstr("may be the last of the row's messages"),
                      Not(HasSubstr("set format: chat"))));
  EXPECT_THAT(advised(R"({"prompt": "p", "completion": "c", "rejected": "d"})"),
              HasSubstr("set fields: {chosen: completion}"));
  EXPECT_THAT(advised(turns + std::string(R"("id": 1})")), HasSubstr("set format: chat"));
}

TEST(Preference, WhoNamesTheChosenAnswerInFieldsTrainsOnIt) {
  const auto pair = std::get<PromptCompletion>(
      read("completion", R"({"prompt": "p", "chosen": "c", "rejected": "d"})",
           {{"completion", "chosen"}}));
  EXPECT_EQ(pair.completion, "c");
  EXPECT_THAT(error("completion", R"({"prompt": "p", "chosen": "c", "rejected": "d"})"),
              HasSubstr("set format: completion and fields: {completion: chosen}"));
  EXPECT_THAT(error("chat", R"({"chosen": [], "rejected": []})"),
              HasSubstr("set format: chat and fields: {messages: chosen}"));
}

TEST(Preference, LabelsAndScoresOfOtherRowsAreNoPreference) {
  EXPECT_EQ(error("text", R"({"text": "t", "label": true})"), "no error");
  EXPECT_EQ(error("completion", R"({"prompt": "p", "completion": "c", "score": 4})"), "no error");
  EXPECT_EQ(error("completion", R"({"prompt": "p", "completion": "c", "chosen": null})"),
            "no error");
}

TEST(UnreadKeys, AreThoseThatNeitherReaderNorTemplateKnow) {
  const auto unread = [](const std::string& format, const char* json, const char* source = "",
                         std::map<std::string, std::string> fields = {}) {
    return unread_keys(Json::parse(json), {"a.jsonl", format, std::move(fields)}, source);
  };
  using Keys = std::set<std::string>;
  EXPECT_EQ(unread("alpaca", R"({"instruction": "i", "output": "o", "id": 1, "Source": "s",)"
                             R"( "quality": 3, "weight": 0.5, "comment": null})"),
            (Keys{"quality", "weight"}));
  EXPECT_EQ(unread("alpaca", R"({"q": "i", "output": "o"})", "", {{"instruction", "q"}}), Keys{});
  const char* chat = R"({"messages": [{"role": "user", "content": "q", "mask": 1, "mood": "m",)"
                     R"( "weight": 1}], "tools": [], "train_detail": []})";
  EXPECT_EQ(unread("chat", chat, "{{ m.mood }}"), (Keys{"messages[].mask", "train_detail"}));
  EXPECT_EQ(unread("sharegpt", R"({"conversations": [{"from": "human", "value": "q", "mood": 1}]})",
                   "{{ m.mood }}"),
            Keys{});
  EXPECT_EQ(unread("sharegpt", R"({"conversations": [{"from": "human", "value": "q", "mood": 1}]})",
                   "{{ m.content }}"),
            (Keys{"conversations[].mood"}));
  const char* parts = R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "q",)"
                      R"( "mask": 1, "cache_control": {}, "train": false, "style": "bold",)"
                      R"( "color": null}]}]})";
  EXPECT_EQ(unread("chat", parts, "{{ m.style }}"),
            (Keys{"messages[].content[].mask", "messages[].content[].style"}));
  EXPECT_EQ(unread("chat",
                   R"({"messages": [{"role": "user", "text": [{"type": "text", "text": "q",)"
                   R"( "mask": 1}]}]})",
                   "", {{"content", "text"}}),
            (Keys{"messages[].text[].mask"}));
  EXPECT_EQ(unread("sharegpt", R"({"conversations": [{"from": "human", "value": [{"type": "text",)"
                               R"( "text": "q", "mask": 1}]}]})"),
            (Keys{"conversations[].value[].mask"}));
  EXPECT_TRUE(may_decide_training("messages[].mask"));
  EXPECT_TRUE(may_decide_training("sampleWeight"));
  EXPECT_FALSE(may_decide_training("difficulty"));
  EXPECT_EQ(field_it_may_be("context", {"a", "alpaca", {{"output", "answer"}}}), "input");
  EXPECT_EQ(field_it_may_be("context", {"a", "alpaca", {{"input", "other"}}}), "");
  EXPECT_EQ(field_it_may_be("context", {"a", "text", {}}), "");
}

}  // namespace
}  // namespace qlora::data
