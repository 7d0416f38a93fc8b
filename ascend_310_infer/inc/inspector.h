// The loop from pictures to verdicts: threads that read pictures, ahead of one engine, results in the order of input.
#ifndef STPM_INC_INSPECTOR_H_
#define STPM_INC_INSPECTOR_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "inc/decision.h"
#include "inc/image.h"
#include "inc/pipeline.h"
#include "inc/regions.h"
#include "inc/source.h"

namespace stpm {

constexpr char kErrorVerdict[] = "error";

// A picture as the network gets it.
struct Prepared {
  Box box;                   // the part of the picture that is seen
  Image seen;                // that part at the network's size
  std::vector<float> input;  // float32 (3, H, W)
};

// What a model says of an image. The last three need a threshold.
struct Finding {
  float score = 0.0F;
  std::optional<float> relative_score;  // as a share of the threshold
  std::string verdict;
  std::vector<Region> regions;
};

// Returns whether all values of a map are finite.
bool IsFinite(const float *map, const ImageSize &size);

// Returns what a map, of size.pixels() finite values, says of the part of a picture that it is of.
Finding Judge(const float *map, const ImageSize &size, const DecisionRule &rule, const Box &box);

// What became of a picture.
struct Inspection {
  Job job;
  std::string error;  // why it has no score; empty if it has one
  Finding finding;    // of an error nothing but its verdict
  double decode_milliseconds = 0.0;
  double inference_milliseconds = 0.0;  // of the call that it was part of
  Image seen;                           // both empty of an error
  std::vector<float> map;
};

// Reads a picture; several threads call it at the same time. Throws Error: it cannot be read.
using Prepare = std::function<Prepared(const Job &)>;

// Takes a result; one thread calls it, in the order of input. Throws Error: the run is to end.
using Take = std::function<void(const Inspection &)>;

// Inspects every picture of a source. Up to decoders + 2 batches of them are in memory. A picture waits for no other
// one to fill up a batch of the engine, only for those that are already being read; what is not filled repeats the last
// image. A map that is not finite makes an error of its picture. Throws what source, engine and take throw; what is
// then in hand is dropped.
void Inspect(Engine *engine, const DecisionRule &rule, Source *source, const Stop *stop, size_t decoders,
             const Prepare &prepare, const Take &take);

}  // namespace stpm

#endif  // STPM_INC_INSPECTOR_H_
