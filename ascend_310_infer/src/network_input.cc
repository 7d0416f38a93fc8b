#include "inc/network_input.h"

#include "inc/resize.h"

namespace stpm {

void ToNetworkInput(const ImageView &image, const Normalisation &normalisation, float *input) {
  for (size_t channel = 0; channel < 3; ++channel) {
    std::array<float, 256> values;  // the arithmetic of numpy, once for each value that a byte can have
    for (size_t i = 0; i < values.size(); ++i) {
      float value = static_cast<float>(i) / 255.0F;
      value -= normalisation.mean[channel];
      values[i] = value / normalisation.std[channel];
    }
    const size_t offset = image.channels == 1 ? 0 : channel;
    for (size_t y = 0; y < image.height; ++y) {
      const uint8_t *pixel = image.pixels + y * image.stride + offset;
      for (size_t x = 0; x < image.width; ++x, pixel += image.channels) *input++ = values[*pixel];
    }
  }
}

void ToNetworkInput(const ImageView &image, size_t width, size_t height, const Normalisation &normalisation,
                    float *input) {
  if (image.width == width && image.height == height) return ToNetworkInput(image, normalisation, input);
  ToNetworkInput(Resize(image, width, height).view(), normalisation, input);
}

}  // namespace stpm
