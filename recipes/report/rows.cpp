#include "recipes/report/rows.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "data/chat_renderer.h"
#include "data/dataset.h"
#include "data/mask_view.h"
#include "model/hub_cache.h"
#include "model/model_header.h"
#include "recipes/models/adapter_text.h"
#include "recipes/models/model_tokens.h"

namespace qlora::recipes {
namespace {
using Json = nlohmann::ordered_json;

const char* name_of(data::Side side) {
  if (side == data::Side::kNone) return "";
  return side == data::Side::kChosen ? "chosen" : "rejected";
}

Json read_rows(const Recipe& recipe, int64_t count, std::string& note) {
  const std::string path = model::resolve_model_path(recipe.model.path);
  const auto tokenizer = tokenizer_of(recipe).tokenizer;
  const auto chat_template = data::choose_chat_template(recipe.data, *tokenizer);
  const data::ModelTokens tokens = model_tokens(model::read_model_header(path).architecture);
  Json rows = Json::array();
  const auto add = [&](const char* part, const std::vector<data::DatasetOptions>& datasets) {
    for (size_t i = 0; i < datasets.size(); ++i) {
      try {
        for (const data::Example& example :
             data::read_first_rows(datasets[i], static_cast<int32_t>(i), count, recipe.data,
                                   *tokenizer, chat_template.get(), tokens))
          rows.push_back(row_json(part, example, *tokenizer));
      } catch (const Error& error) {
        note += (note.empty() ? "" : "\n") + std::string(error.what());
      }
    }
  };
  add(recipe.data.eval_fraction > 0 ? "train or evaluation" : "train", recipe.data.train);
  add("evaluation", recipe.data.eval);
  return rows;
}

}  // namespace

Json row_json(const std::string& part, const data::ExampleView& example,
              const data::Tokenizer& tokenizer) {
  Json row = {{"part", part},
              {"source", example.source},
              {"row", example.row},
              {"side", name_of(example.side)},
              {"tokens", example.length()},
              {"supervised", example.num_supervised()},
              {"encoded", data::encoded_text(example, tokenizer)},
              {"spans", Json::array()}};
  for (const data::MaskedSpan& span : data::masked_spans(example, tokenizer))
    row["spans"].push_back(Json::array({span.trained, span.text}));
  return row;
}

Json first_rows(const Recipe& recipe, int64_t count, std::string& note) {
  note.clear();
  Json rows = Json::array();
  try {
    if (count > 0) rows = read_rows(recipe, count, note);
  } catch (const Error& error) {
    note = error.what();
  }
  if (!note.empty()) note = "Rows that cannot be shown: " + note;
  return rows;
}

Json data_record(const std::string& title, const data::PreparedData& data,
                 const data::Tokenizer& tokenizer, int64_t num_rows) {
  Json record = {{"kind", "data"},
                 {"title", title},
                 {"reports", Json::array()},
                 {"warnings", data.warnings},
                 {"rows", Json::array()}};
  const auto add = [&](const char* part, const std::vector<data::DatasetReport>& reports,
                       const data::Examples& examples) {
    for (const data::DatasetReport& report : reports)
      record["reports"].push_back(Json::array({part, data::to_text(report)}));
    std::map<int32_t, int64_t> shown;
    for (const data::ExampleView& example : examples) {
      shown[example.source] += example.side != data::Side::kRejected;
      if (num_rows < 0 || shown[example.source] <= num_rows)
        record["rows"].push_back(row_json(part, example, tokenizer));
    }
  };
  add("train", data.train_reports, data.train);
  add("evaluation", data.eval_reports, data.eval);
  return record;
}

}  // namespace qlora::recipes
