// The decision on an image, from its anomaly map to score and verdict: as src/evaluation/decision.py.
#ifndef STPM_INC_DECISION_H_
#define STPM_INC_DECISION_H_

#include <optional>
#include <string>

#include "inc/image_size.h"

namespace stpm {

struct DecisionRule {
  std::optional<float> threshold;  // score from which an image is defective; without one there are no verdicts
  size_t min_area = 1;             // pixels of an anomaly map; smaller regions make no image defective
  std::optional<float> review;     // share of the threshold from which a person is to look at an image

  // Returns the anomaly score of an image: the highest level at which a region of min_area is left of its map, which
  // holds size.pixels() finite values. With an area of 1 that is the map's maximum.
  float Score(const float *map, const ImageSize &size) const;

  // Returns a score as a share of the threshold, which there must be.
  float Relative(float score) const { return score / *threshold; }

  // Returns "defective" from the threshold on, below it "review" from its share on, else "good"; needs a threshold.
  std::string Verdict(float score) const;
};

}  // namespace stpm

#endif  // STPM_INC_DECISION_H_
