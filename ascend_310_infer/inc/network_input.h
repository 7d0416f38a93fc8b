// The network's input: float32, as src/data/images.py scales and normalises images, to the same bytes.
#ifndef STPM_INC_NETWORK_INPUT_H_
#define STPM_INC_NETWORK_INPUT_H_

#include <array>

#include "inc/image.h"

namespace stpm {

// By channel, of values from 0 to 1: red, green, blue.
struct Normalisation {
  std::array<float, 3> mean = {0.485F, 0.456F, 0.406F};  // ImageNet's, those of src/data/images.py
  std::array<float, 3> std = {0.229F, 0.224F, 0.225F};
};

// Scales and normalises an image. Of a grey one the three channels are alike.
//   input: float32 (3, height, width) of the image
void ToNetworkInput(const ImageView &image, const Normalisation &normalisation, float *input);

// Resizes an image, or a part of it that lies within it, and does the same.
//   input: float32 (3, height, width)
void ToNetworkInput(const ImageView &image, size_t width, size_t height, const Normalisation &normalisation,
                    float *input);

}  // namespace stpm

#endif  // STPM_INC_NETWORK_INPUT_H_
