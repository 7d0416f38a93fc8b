// The read-infer-write loop over any inference engine.
#ifndef STPM_INC_PIPELINE_H_
#define STPM_INC_PIPELINE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "inc/decision.h"
#include "inc/options.h"

namespace stpm {

// Something that turns batches of images into anomaly maps. One thread uses it at a time.
class Engine {
 public:
  Engine() = default;
  virtual ~Engine() = default;
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  virtual size_t batch_size() const = 0;
  virtual ImageSize image_size() const = 0;
  size_t input_floats() const { return 3 * image_size().pixels(); }  // of one image
  size_t output_floats() const { return image_size().pixels(); }     // of one map

  // Computes the maps of batch_size() images: images holds batch_size() * input_floats() values, maps receives
  // batch_size() * output_floats(). Neither is kept. Throws Error.
  virtual void Infer(const float *images, float *maps) = 0;
};

struct Latency {
  double mean = 0.0;
  double median = 0.0;
  double p99 = 0.0;  // nearest rank
};

// Summarises durations; throws std::invalid_argument if there are none.
Latency Summarise(std::vector<double> milliseconds);

struct RunSummary {
  size_t images = 0;
  size_t batch_size = 0;
  size_t calls = 0;                   // counted ones
  Latency call;                       // of the counted inference calls
  double total_seconds = 0.0;         // from the first read to the last write, without warm-up
  double images_per_second = 0.0;     // all included
  double inference_per_second = 0.0;  // images per second of inference alone
};

// Makes the folder of results of these inputs, which are in options.input_path. Throws Error: it cannot be made, the
// name of a map is too long, or a map would take the place of an input.
void PrepareResults(const Options &options, const std::vector<std::string> &names);

// Computes the map of every one of these inputs in options.input_path and writes it to options.result_path, then
// origin.json, by which postprocess.py knows model and inputs (size and CRC-32 of options.mindir_path and of the
// inputs' manifest.json, if there is one) and src/calibrate.py the minimum area of the scores, and scores.csv:
//   input, score, milliseconds (of the call that the image was part of) and, if there is a threshold, relative_score
//   (as a share of it) and verdict, by the rule.
// While one batch is being inferred the next is read and the previous one written. What is kept of an input is its
// name, its line of scores.csv and the time of its call: about 200 bytes, 200 MB for a million. The last batch is
// filled up by repeating its last image, and what that gives is dropped. The engine is borrowed, and called by the
// caller's thread alone; meanwhile another one reads and writes, which has ended when this returns or throws. Results
// of an earlier run for the same inputs, and its scores.csv and origin.json, are removed first: what is there for them
// afterwards is of this run. Throws Error: an input has the wrong size or cannot be read, a map is not finite, or a
// file cannot be written.
RunSummary RunPipeline(Engine *engine, const Options &options, const DecisionRule &rule,
                       const std::vector<std::string> &names);

// Returns a run's figures as lines "name: value".
std::string Report(const RunSummary &summary);

// Returns the line that the model zoo's programs write to test_perform_static.txt: mean time and number of the calls.
std::string StaticReport(const RunSummary &summary);

}  // namespace stpm

#endif  // STPM_INC_PIPELINE_H_
