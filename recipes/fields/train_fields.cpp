// The keys of a recipe's train section.
#include "recipes/fields/field_makers.h"

namespace qlora::recipes {

Section train_section() {
  using Options = trainer::TrainOptions;
  const Members<Options> in{&Recipe::train};
  return section(
      "train", "The run itself. Either `max_steps` or `epochs` must be set.", &Recipe::train,
      {in({"objective", "sft | dpo | orpo",
           "sft: the answers of the rows are learnt. dpo and orpo learn from rows of format "
           "preference, which have a chosen and a rejected answer. dpo makes the chosen answer "
           "more likely than the rejected one, where the likelihood of each is taken relative to "
           "what the model gave it before the run. orpo needs no such reference: it learns the "
           "chosen answer and at once makes it more likely than the rejected one."},
          &Options::objective),
       in({"beta", "number",
           "dpo: how strongly the model is held to what it was before the run. orpo: weight of the "
           "comparison, lambda in its paper."},
          &Options::beta),
       in({"loss_type", "sigmoid | hinge | ipo",
           "dpo: which function of the two answers' likelihoods is the loss of a pair. ipo takes "
           "the mean over an answer's tokens, the others take the sum."},
          &Options::loss_type),
       in({"label_smoothing", "number",
           "dpo with sigmoid: the share of pairs taken to be the wrong way round, in [0, 0.5)."},
          &Options::label_smoothing),
       in({"max_steps", "integer",
           "Length of the run in optimizer steps. 0: `epochs` says how long it is."},
          &Options::max_steps) |
           Free{"The run ends earlier or later; later needs `on_extend`."},
       in({"epochs", "number",
           "Length of the run in passes over the rows; a part of a pass is rounded up to whole "
           "steps. 0: `max_steps` says how long it is."},
          &Options::epochs) |
           Free{"The run ends earlier or later; later needs `on_extend`."},
       in({"micro_batch_size", "integer",
           "Sequences that go through the model at once. A sequence of preference rows holds whole "
           "pairs of answers and may have up to twice `data.sequence_length` tokens."},
          &Options::micro_batch_size),
       in({"gradient_accumulation_steps", "integer", "Micro-batches in one optimizer step."},
          &Options::gradient_accumulation_steps),
       in.word_or_boolean(
           {"gradient_checkpointing", "auto | true | false | integer",
            "Recomputes layers in the backward pass, which trades time for memory: all of them "
            "(true), none (false), or the first N of them. auto: as few as the memory requires."},
           &Options::gradient_checkpointing),
       in({"compute_dtype", "auto | bfloat16 | float16 | float32",
           "Type of the matrix products; adapters, norms and sums are float32 in any case. auto: "
           "bfloat16 where the processor (AVX-512 BF16) or GPU multiplies it; otherwise float32 on "
           "a processor, float16 on a GPU (before Ampere). The run says which, and keeps to it "
           "when it is resumed. float16 is for GPUs without bfloat16: the loss is scaled, and a "
           "step that overflows is left out. A 16-bit type that the processor does not multiply "
           "takes as long as float32."},
          &Options::compute_dtype),
       in({"seed", "integer",
           "Decides shuffling, dropout, stochastic rounding, initial adapters, and which rows "
           "`data.eval_fraction` sets aside."},
          &Options::seed),
       in({"device", "auto | cpu | cuda | cuda:N",
           "Device that computes. auto: a GPU if the program is built for one and the machine has "
           "one, else the CPU."},
          &Options::device),
       in({"threads", "integer", "Number of CPU threads. 0: one for each core."},
          &Options::threads),
       in({"profile_steps", "integer",
           "How many steps are profiled: a table on the terminal, and profile.json, a Chrome "
           "trace, in "
           "the run directory. They begin with the third step after each start or resumption; if "
           "the "
           "run ends or is stopped earlier, those are profiled that there were."},
          &Options::profile_steps) |
           Free{"Training is the same."},
       in({"eval_every", "integer", "Steps between evaluations. 0: only at the end."},
          &Options::eval_every) |
           Free{"The run is evaluated at other steps. Training is the same; another checkpoint may "
                "be the best."},
       in({"early_stopping_patience", "integer",
           "Ends the run after this many evaluations in a row without a gain. 0: never. The run's "
           "adapter is that of its last step; `best` in its directory is a link to the checkpoint "
           "with the lowest evaluation loss."},
          &Options::early_stopping_patience) |
           Free{"The run ends earlier or later."},
       in({"early_stopping_min_delta", "number",
           "A gain is a fall of the evaluation loss by more than this."},
          &Options::early_stopping_min_delta) |
           Free{"The run ends earlier or later: the evaluations that it has made are judged anew, "
                "also where they ended it."},
       in({"save_every", "integer", "Steps between checkpoints. 0: only at the end."},
          &Options::save_every) |
           Free{"The run is saved at other steps; training is the same."},
       in({"save_total_limit", "integer",
           "How many of the newest checkpoints are kept; the best and the last one are kept in any "
           "case."},
          &Options::save_total_limit) |
           Free{"Older checkpoints beyond the new limit are removed at the next save."},
       in({"log_every", "integer",
           "Steps between lines on the terminal. 0: every step, but no more than two lines a "
           "second. "
           "metrics.jsonl and TensorBoard get every step in any case."},
          &Options::log_every) |
           Free{"Training is the same."},
       in({"sample_prompts", "list of texts",
           "Prompts that the model as it is answers before the first step, on the way and at the "
           "end: greedily, up to 128 tokens each, into log.txt, samples.jsonl and TensorBoard. If "
           "the list has a single entry that ends like the name of a file, the prompts are read "
           "from that file: one a line of a .txt file (also .gz, .zst), or one a row of a file of "
           "rows (.jsonl, .json, .ndjson, .csv, .tsv, each also .gz, .zst; .parquet, .arrow, "
           ".feather), which holds it as `prompt` (a text), `messages` (as in format chat), or in "
           "JSON as the text itself. The name of a file that has spaces must end in .txt or "
           ".jsonl. If conversations or Alpaca's prompts are trained, these prompts pass through "
           "the chat template too."},
          &Options::sample_prompts) |
           Free{"Training is the same."},
       in({"sample_every", "integer",
           "Steps between answers to `sample_prompts`. 0: only before the first step and at the "
           "end."},
          &Options::sample_every) |
           Free{"Training is the same."},
       in({"audit", "boolean",
           "Stops the run if trained tensors have got no gradient in 20 updates, or if in three "
           "steps in a row the loss was above twice its first value and above that of guessing. "
           "Refuses rows that begin with two BOS tokens, and data sets in which no answer ends "
           "with an end-of-turn token that is trained; false: a warning says so instead."},
          &Options::audit) |
           Free{"Training is the same."},
       in({"rank_timeout", "integer",
           "Seconds that the processes of one run (`docs/distributed.md`) wait for one that says "
           "nothing before they stop."},
          &Options::rank_timeout) |
           Free{"Training is the same."},
       in({"resume", "auto | never | path",
           "auto: an interrupted run of the same recipe in `output.dir` is continued. never: if "
           "`output.dir` holds a run, that is an error unless `overwrite` is set. A path: the run "
           "is continued from that checkpoint."},
          &Options::resume) |
           Free{"It decides from where the run continues; training is the same."},
       in({"on_extend", "continue | rescale",
           "What the learning rate does when a resumed run is longer than it was. continue: it "
           "keeps its old course and then stays at its last value, which must not be 0: with "
           "constant, inverse_sqrt and reduce_on_plateau, or with a `min_lr_ratio` above 0 where "
           "the schedule obeys it. rescale: it follows the course of the new length. Empty: such a "
           "run is refused with a message that asks for one of the two."},
          &Options::on_extend) |
           Free{"It matters only when the length changes."}});
}

}  // namespace qlora::recipes
