// The job of the training loop (trainer/train_loop.h) as a recipe wants it: how long it runs, and
// what happens between its steps.
#pragma once

#include "data/prepare.h"
#include "recipes/recipe.h"
#include "recipes/run/preferences.h"
#include "recipes/run_files/run_directory.h"
#include "trainer/checkpoint.h"
#include "trainer/run_report.h"
#include "trainer/train_loop.h"

namespace qlora::recipes {

// What the run's lines show, and which evaluations its time left counts.
trainer::ReportOptions report_options(const Recipe& recipe, const data::PreparedData& data);

// Objective, length, clipping, evaluation and saving of the loop, whose group is set. All arguments
// outlive the job. `report`: of the first rank, which alone reports and writes; else null.
void set_up_job(const Recipe& recipe, const data::PreparedData& data, const Reference& reference,
                RunDirectory& run, const trainer::CheckpointParts& parts,
                trainer::RunReport* report, trainer::TrainJob& job);

}  // namespace qlora::recipes
