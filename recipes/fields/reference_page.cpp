#include "recipes/fields/reference_page.h"

#include <fmt/format.h>

#include "recipes/fields/fields.h"

namespace qlora::recipes {
namespace {

// A bar would end the cell of the table.
std::string cell(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

template <typename Owner>
std::string table(const std::vector<Field<Owner>>& fields, const Owner& defaults, bool resume) {
  std::string text = resume
                         ? "| key | type | default | meaning | on resume |\n|---|---|---|---|---|\n"
                         : "| key | type | default | meaning |\n|---|---|---|---|\n";
  for (const Field<Owner>& field : fields) {
    const std::string standard = !field.shown_default.empty() ? field.shown_default
                                 : field.required
                                     ? "required"
                                     : fmt::format("`{}`", to_yaml(field.write(defaults)));
    text += fmt::format("| `{}` | {} | {} | {} |", field.key, cell(field.type), cell(standard),
                        cell(field.meaning));
    if (resume)
      text += field.on_resume == OnResume::kFixed ? " fixed |"
                                                  : fmt::format(" free. {} |", field.resume_effect);
    text += "\n";
  }
  return text;
}

}  // namespace

std::string reference_page() {
  std::string text =
      "# Recipe keys\n\n"
      "Made by `qlora reference` from the lists that read a recipe; do not edit. Paths are "
      "relative to the recipe; a leading `~/` is the home directory. `--set section.key=value` "
      "overrides any key, and takes the place of a key of the file that excludes it: with `--set "
      "train.max_steps=3` the file's `epochs` does not count. A key that is not listed here is an "
      "error. *On resume* says whether a "
      "run that has begun may go on with another value: *fixed* means that it may not; *free* "
      "means that it may, and the sentence behind it says what changes then.\n";
  for (const Section& section : sections()) {
    text += fmt::format("\n## {}\n\n{}\n\n{}", section.name, section.meaning,
                        table(section.fields, Recipe(), true));
    if (section.name == "data")
      text += "\n### Entries of `data.train` and `data.eval`\n\n" +
              table(dataset_fields(), data::DatasetOptions(), false);
  }
  return text;
}

}  // namespace qlora::recipes
