#include "inc/resize.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "inc/utils.h"

namespace stpm {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kRadius = 3.0;  // of the filter, in pixels of the smaller picture
constexpr int kWeightBits = 22;  // behind the point
constexpr size_t kLanes = 32;    // numbers that are worked on together

double Sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= kPi;
  return std::sin(x) / x;
}

double Lanczos(double x) { return -kRadius <= x && x < kRadius ? Sinc(x) * Sinc(x / kRadius) : 0.0; }

// Which pixels of a line each pixel of the resized line is made of, and by which weights.
struct Taps {
  std::vector<size_t> first, count;  // by pixel
  std::vector<int32_t> weights;      // largest of them from i * largest on
  size_t largest = 0;

  size_t size() const { return first.size(); }
};

Taps FindTaps(size_t from, size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(scale, 1.0);
  const double support = kRadius * stretch;
  const double per_pixel = 1.0 / stretch;
  Taps taps;
  taps.largest = static_cast<size_t>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(to * taps.largest);
  std::vector<double> exact(taps.largest);
  for (size_t i = 0; i < to; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<size_t>(std::max(centre - support + 0.5, 0.0));
    const size_t last = std::min(static_cast<size_t>(centre + support + 0.5), from);
    const size_t count = last - first;
    double sum = 0.0;
    for (size_t tap = 0; tap < count; ++tap) {
      exact[tap] = Lanczos((static_cast<double>(tap + first) - centre + 0.5) * per_pixel);
      sum += exact[tap];
    }
    for (size_t tap = 0; tap < count; ++tap) {
      const double weight = (sum != 0.0 ? exact[tap] / sum : exact[tap]) * (1 << kWeightBits);
      taps.weights[i * taps.largest + tap] = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    taps.first.push_back(first);
    taps.count.push_back(count);
  }
  return taps;
}

// A stack of lines, resized along the stack: bytes of one place in all lines make one line. A line has length bytes,
// a multiple of kLanes.
struct Stack {
  const uint8_t *from;
  size_t from_stride;
  uint8_t *to;
  size_t to_stride;
  size_t length;
};

// Makes kLanes bytes of a resized line. Loops of a fixed length, which the compiler turns into whole registers.
__attribute__((always_inline)) inline void ResizePart(const uint8_t *from, size_t stride, const int32_t *weights,
                                                      size_t count, uint8_t *to) {
  int32_t sums[kLanes];
  for (size_t i = 0; i < kLanes; ++i) sums[i] = 1 << (kWeightBits - 1);
  for (size_t tap = 0; tap < count; ++tap, from += stride) {
    const int32_t weight = weights[tap];
    for (size_t i = 0; i < kLanes; ++i) sums[i] += weight * from[i];
  }
  for (size_t i = 0; i < kLanes; ++i) {
    const int32_t rounded = sums[i] >> kWeightBits;
    to[i] = static_cast<uint8_t>(std::min(std::max(rounded, 0), 255));
  }
}

__attribute__((always_inline)) inline void ResizeStackInline(const Stack &stack, const Taps &taps) {
  for (size_t i = 0; i < taps.size(); ++i) {
    const uint8_t *const from = stack.from + taps.first[i] * stack.from_stride;
    uint8_t *const to = stack.to + i * stack.to_stride;
    const int32_t *const weights = &taps.weights[i * taps.largest];
    for (size_t place = 0; place < stack.length; place += kLanes) {
      ResizePart(from + place, stack.from_stride, weights, taps.count[i], to + place);
    }
  }
}

// The same whole numbers by each of them.
#ifdef __x86_64__
__attribute__((target("avx512f,avx512bw,avx512vl"))) void ResizeStackAvx512(const Stack &stack, const Taps &taps) {
  ResizeStackInline(stack, taps);
}
__attribute__((target("avx2"))) void ResizeStackAvx2(const Stack &stack, const Taps &taps) {
  ResizeStackInline(stack, taps);
}
#endif

void ResizeStack(const Stack &stack, const Taps &taps) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return ResizeStackAvx512(stack, taps);
  if (__builtin_cpu_supports("avx2")) return ResizeStackAvx2(stack, taps);
#endif
  ResizeStackInline(stack, taps);
}

// Changes the width. Rows are taken kLanes at a time and laid across, so that they can be worked on together.
Image ResizeWidth(const ImageView &image, size_t width) {
  Image resized{width, image.height, image.channels, std::vector<uint8_t>(width * image.height * image.channels)};
  const Taps taps = FindTaps(image.width, width);
  const size_t channels = image.channels, from_bytes = image.width * channels, to_bytes = width * channels;
  std::vector<uint8_t> across(from_bytes * kLanes), resized_across(to_bytes * kLanes);
  for (size_t top = 0; top < image.height; top += kLanes) {
    const size_t rows = std::min(kLanes, image.height - top);
    for (size_t row = 0; row < rows; ++row) {
      const uint8_t *const from = image.pixels + (top + row) * image.stride;
      uint8_t *const to = &across[row];
      for (size_t i = 0; i < from_bytes; ++i) to[i * kLanes] = from[i];
    }
    const size_t length = channels * kLanes;
    ResizeStack({across.data(), length, resized_across.data(), length, length}, taps);
    for (size_t row = 0; row < rows; ++row) {
      uint8_t *const to = &resized.pixels[(top + row) * to_bytes];
      const uint8_t *const from = &resized_across[row];
      for (size_t i = 0; i < to_bytes; ++i) to[i] = from[i * kLanes];
    }
  }
  return resized;
}

// Changes the height. Rows are worked on in parts that stay in the processor's nearest memory.
Image ResizeHeight(const ImageView &image, size_t height) {
  constexpr size_t kPart = 8 * kLanes;
  Image resized{image.width, height, image.channels, std::vector<uint8_t>(image.width * height * image.channels)};
  const Taps taps = FindTaps(image.height, height);
  const size_t bytes = image.width * image.channels;
  const size_t whole = bytes / kLanes * kLanes;
  for (size_t place = 0; place < whole; place += kPart) {
    const size_t length = std::min(kPart, whole - place);
    ResizeStack({image.pixels + place, image.stride, &resized.pixels[place], bytes, length}, taps);
  }
  if (whole < bytes) {  // the rest, which has too few bytes, in a copy
    std::vector<uint8_t> rest(image.height * kLanes), resized_rest(height * kLanes);
    for (size_t y = 0; y < image.height; ++y) {
      std::copy_n(image.pixels + y * image.stride + whole, bytes - whole, &rest[y * kLanes]);
    }
    ResizeStack({rest.data(), kLanes, resized_rest.data(), kLanes, kLanes}, taps);
    for (size_t y = 0; y < height; ++y) {
      std::copy_n(&resized_rest[y * kLanes], bytes - whole, &resized.pixels[y * bytes + whole]);
    }
  }
  return resized;
}

Image Copy(const ImageView &image) {
  const size_t bytes = image.width * image.channels;
  Image copy{image.width, image.height, image.channels, std::vector<uint8_t>(bytes * image.height)};
  for (size_t y = 0; y < image.height; ++y) {
    std::copy_n(image.pixels + y * image.stride, bytes, &copy.pixels[y * bytes]);
  }
  return copy;
}

}  // namespace

ImageView Cut(const ImageView &image, const Box &box) {
  if (box.width == 0 || box.height == 0 || box.x > image.width || box.y > image.height ||
      box.width > image.width - box.x || box.height > image.height - box.y) {
    throw Error("a part of " + std::to_string(box.width) + " x " + std::to_string(box.height) + " pixels at (" +
                std::to_string(box.x) + ", " + std::to_string(box.y) + ") does not lie within an image of " +
                std::to_string(image.width) + " x " + std::to_string(image.height));
  }
  ImageView part = image;
  part.pixels += box.y * image.stride + box.x * image.channels;
  part.width = box.width;
  part.height = box.height;
  return part;
}

Image Resize(const ImageView &image, size_t width, size_t height) {
  if (image.width == width) return image.height == height ? Copy(image) : ResizeHeight(image, height);
  Image resized = ResizeWidth(image, width);
  return image.height == height ? resized : ResizeHeight(resized.view(), height);
}

}  // namespace stpm
