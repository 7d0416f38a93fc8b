// Where on a picture a defect is: as src/evaluation/regions.py.
#ifndef STPM_INC_REGIONS_H_
#define STPM_INC_REGIONS_H_

#include <cstddef>
#include <vector>

#include "inc/decision.h"
#include "inc/image.h"
#include "inc/image_size.h"

namespace stpm {

// One region, in pixels of the picture as it is shown upright.
struct Region {
  size_t x = 0, y = 0;  // left and upper edge of its box
  size_t width = 0, height = 0;
  size_t area = 0;     // of the region itself
  float score = 0.0F;  // its highest anomaly value
};

// Returns the 8-connected regions that make an image defective by a rule with a threshold, sorted by (-score, y, x).
//   map: size.pixels() finite values
//   box: the part of the picture that the map is of
std::vector<Region> FindRegions(const float *map, const ImageSize &size, const DecisionRule &rule, const Box &box);

// Returns a map with 0 where it reaches the threshold, which there must be, in regions that are too small to count.
std::vector<float> WithoutSmallRegions(const std::vector<float> &map, const ImageSize &size, const DecisionRule &rule);

}  // namespace stpm

#endif  // STPM_INC_REGIONS_H_
