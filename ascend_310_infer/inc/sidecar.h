// The JSON file that export.py writes beside a model.
#ifndef STPM_INC_SIDECAR_H_
#define STPM_INC_SIDECAR_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "inc/decision.h"
#include "inc/image.h"
#include "inc/image_size.h"

namespace stpm {

// What the model must compute of the input "pattern-1".
struct SelfTest {
  struct Place {
    size_t y = 0, x = 0;
    double value = 0.0;
  };

  ImageSize image_size;
  double score = 0.0;
  std::vector<Place> map;  // values at some places of the anomaly map
};

// How pictures become inputs of the network, by the file.
enum class Preprocessing {
  kUnknown,  // nothing is said, or what no release of this program does
  kPresent,
  kFormer,  // of a release that left the order of a resizing's two passes to Pillow: the same but for tall images
};

// What the program takes from the file; what the file does not say has no value.
struct Sidecar {
  std::string warning;  // why the model is used unchecked; empty if it is not
  std::optional<ImageSize> image_size;
  std::optional<Box> roi;  // region of interest, in pixels of the upright picture
  Preprocessing preprocessing = Preprocessing::kUnknown;
  DecisionRule rule;
  std::optional<SelfTest> selftest;
};

// Returns where the JSON file of a model stands: "a/b.mindir" -> "a/b.json".
std::string SidecarPath(const std::string &model_path);

// Reads the JSON file beside a model and checks the model's SHA-256 against it; the library can crash on a damaged
// model. If there is no such file, as for models that other tools converted, only the warning is set. Throws Error: the
// file is damaged or does not describe the model, or the model is not the one that it describes.
Sidecar ReadSidecar(const std::string &model_path);

}  // namespace stpm

#endif  // STPM_INC_SIDECAR_H_
