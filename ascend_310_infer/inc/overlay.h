// Pictures that show where a defect is: in the colours of src/report/pictures.py.
#ifndef STPM_INC_OVERLAY_H_
#define STPM_INC_OVERLAY_H_

#include <string>
#include <vector>

#include "inc/decision.h"
#include "inc/image.h"
#include "inc/image_size.h"
#include "inc/inspector.h"

namespace stpm {

// Returns an image, RGB, with an outline around what reaches the threshold in its map.
Image Outlined(const Image &image, const std::vector<float> &map, float threshold);

// Returns a map coloured by its values, black for 0, brightest for two thresholds and more.
Image Coloured(const std::vector<float> &map, const ImageSize &size, float threshold);

// Returns two RGB images of one height in one.
Image SideBySide(const Image &left, const Image &right);

// Writes an RGB image. Throws Error.
void WritePng(const std::string &path, const Image &image);

// Writes the image that the network saw, with the defect outlined, and its anomaly map beside it. Regions that are too
// small to count have no outline. Throws Error.
//   rule: with a threshold
void DrawOverlay(const Inspection &inspection, const ImageSize &size, const DecisionRule &rule,
                 const std::string &path);

}  // namespace stpm

#endif  // STPM_INC_OVERLAY_H_
