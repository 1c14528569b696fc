#include "cli/answer_options.h"

namespace qlora::cli {

void add_answer_options(Command command, model::GenerateOptions& options) {
  command.add_option("--temperature", options.temperature, "0: the most likely token")
      .not_negative()
      .with_shown_default();
  command.add_option("--top-p", options.top_p, "Sample from the tokens of this total probability")
      .between(0.0, 1.0)
      .with_shown_default();
  command.add_option("--max-new-tokens", options.max_new_tokens, "Longest answer")
      .positive()
      .with_shown_default();
  command.add_option("--seed", options.seed, "Of the draws with a --temperature above 0")
      .not_negative()
      .with_shown_default();
  command
      .add_option("--draft-tokens", options.draft_tokens,
                  "Tokens of an answer that are guessed at most at a time, where it repeats what "
                  "was said; the answer is the same, and comes sooner (CPU)")
      .between(0, options.kMostDraftTokens)
      .with_shown_default();
}

}  // namespace qlora::cli
