// How long a step will take: two layers of the model's own shape, format and adapters, on made
// weights, run as many tokens of a micro-batch as a second or so allows, stage by stage (the stages
// of base/profile.h); each stage's time then grows as its arithmetic does.
//
//   dequantization                  layers · micro-batches
//   attention                       layers · tokens · what a token takes (attention_sample.h)
//   head, softmax and loss          tokens
//   forward products                tokens · (weights of all layers + head)
//   everything else in a layer      layers · tokens
//   optimizer, publishing           layers · steps
//
// Weights that lie elsewhere are fetched beside that (trainer/fetch_plan.h): a step takes the
// longer of the two. Blocks that a GPU's host multiplies in float32 take what their products take
// there, by arithmetic.
//
// Where layers are of several kinds (windows, experts), each kind is measured as a model made of it
// alone, and counts as often as there are such layers.
//
// Where some layers are recomputed and others not, two recomputed and two kept ones are measured,
// and each counts as often as there are such layers.
//
// Sequences are taken as one document each: packed short rows cost less attention.
//
// A sample takes as long as products do on this machine (trainer/product_rate.h): where 64 tokens
// would take too long, or the model has an encoder, the step is what its products take by
// arithmetic, and nothing else is measured. Measuring draws no random number of the program's, and
// is left when a stop is wanted.
//
// Time on the clock is longer where other programs compute beside it (base/processor_share.h): the
// plan then says so. Nothing of it is kept for another plan or run.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/made_weights.h"
#include "quant/quantization_options.h"
#include "trainer/fetch_plan.h"
#include "trainer/memory_plan.h"

namespace qlora::trainer {

struct StagePlan {
  std::string stage;
  double seconds = 0;  // a step
};

struct TimePlan {
  std::vector<StagePlan> stages;  // the longest first
  FetchPlan fetch;                // beside them
  double seconds_a_step = 0;      // the longer of the two
  double tokens_a_second = 0;
  double calibration_seconds = 0;
  // Of the time that was measured on the clock, what other programs had of the processors
  // (base/processor_share.h).
  double taken_by_others = 0;
};

// Of Calibration::seconds.
constexpr double kCalibrationSeconds = 1.5;

struct Calibration {
  const PlannedRun& run;
  int64_t gradient_accumulation_steps = 1;
  quant::QuantizationOptions quantization;
  model::PackedMaker packed = {};  // of models whose file packs its weights
  c10::Device device = c10::Device(c10::kCPU);
  double seconds = kCalibrationSeconds;  // for the mean of a step, of each kind of layers
  // A file of the model's weights, on whose disk those lie that the run has there; empty: none.
  std::string weights_file = {};
};

// The one stage where nothing was measured.
constexpr char kProductsAlone[] = "products, by arithmetic";
// Another, beside a GPU, of blocks in float32 (quantization.fp32_cpu_offload).
constexpr char kProductsOnHost[] = "products on the CPU, by arithmetic";

// Allocates two layers, embedding and head, and measures on `device`; with one CPU thread the time
// on the processor, else the time on the clock.
TimePlan plan_time(const Calibration& calibration);

// What plan_time() takes memory for at most, as a run to plan: two layers on the longest sample.
PlannedRun calibration_run(const PlannedRun& run);

}  // namespace qlora::trainer
