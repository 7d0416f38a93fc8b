// Images in memory: 8 bits, RGB or grey, upright.
#ifndef STPM_INC_IMAGE_H_
#define STPM_INC_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace stpm {

// An image of somebody else: rows from the top, pixels from the left.
struct ImageView {
  const uint8_t *pixels = nullptr;
  size_t width = 0, height = 0;
  size_t channels = 3;  // 3: red, green, blue; 1: grey
  size_t stride = 0;    // bytes from a row to the next
};

// An image that holds its pixels, without gaps.
struct Image {
  size_t width = 0, height = 0;
  size_t channels = 3;
  std::vector<uint8_t> pixels;

  ImageView view() const { return {pixels.data(), width, height, channels, width * channels}; }
};

// A part of an image, in its pixels.
struct Box {
  size_t x = 0, y = 0;
  size_t width = 0, height = 0;
};

}  // namespace stpm

#endif  // STPM_INC_IMAGE_H_
