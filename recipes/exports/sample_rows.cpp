#include "recipes/exports/sample_rows.h"

#include "data/prompt_encoder.h"

namespace qlora::recipes {

std::vector<std::vector<int32_t>> sample_sentences(const data::Tokenizer& tokenizer) {
  const data::PromptEncoder encoder(tokenizer);
  std::vector<std::vector<int32_t>> rows;
  for (const char* text :
       {"The train to the coast leaves every morning at seven, and those who miss it wait until "
        "noon.",
        "def area(radius):\n    return 3.14159 * radius ** 2\n",
        "{\"name\": \"lamp\", \"price\": 12.5, \"colours\": [\"red\", \"blue\"]}",
        "In 1869 a chemist arranged the known elements in a table and left gaps for those to "
        "come."})
    rows.push_back(encoder.encode(text));
  return rows;
}

}  // namespace qlora::recipes
