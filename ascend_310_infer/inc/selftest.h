// Does the device compute what it should? An input that both languages make from a formula, and what it must give.
#ifndef STPM_INC_SELFTEST_H_
#define STPM_INC_SELFTEST_H_

#include <string>
#include <vector>

#include "inc/options.h"
#include "inc/pipeline.h"
#include "inc/sidecar.h"

namespace stpm {

// Returns the input pattern-1, float32 (3, H, W): byte ((7 x + 13 y + 53 c) ^ ((x y) >> 4)) & 255 of channel c, row y
// and column x, scaled and normalised as to_network_input in src/data/images.py does it, to the last bit.
std::vector<float> PatternInput(const ImageSize &size);

// How far what was computed is from what is expected; relative means max|a - b| / max|b|.
struct SelfTestResult {
  double map_difference = 0.0;    // largest, relative, of the values that the JSON file names
  double score_difference = 0.0;  // relative
};

// Computes the pattern's map, by one call of the engine, which fills the whole batch with it, and compares every map of
// that batch with what the JSON file says; the largest differences count. sidecar_path is for messages. Throws Error:
// the model takes images of another size, or a map is not finite.
SelfTestResult RunSelfTest(Engine *engine, const SelfTest &expected, const std::string &sidecar_path);

// Returns the largest difference that may be: 1e-4 where float32 is computed with, 1e-2 where the device's matrix unit
// takes float16. What an Ascend multiplies was emulated so: maps of the pattern differed by up to 1.3e-3.
double SelfTestTolerance(const Options &options);

// Returns the figures as lines "name: value".
std::string SelfTestReport(const SelfTestResult &result, const Options &options);

}  // namespace stpm

#endif  // STPM_INC_SELFTEST_H_
