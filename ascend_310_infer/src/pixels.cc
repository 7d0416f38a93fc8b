#include "inc/pixels.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "inc/utils.h"

namespace stpm {
namespace {

constexpr char kLimitName[] = "STPM_MAX_PIXELS";
constexpr uint64_t kPixels = 178956970;  // src/utils.py

}  // namespace

void Pixels::Allocate(Kind new_kind, size_t new_width, size_t new_height) {
  kind = new_kind;
  width = new_width;
  height = new_height;
  bytes.assign(width * height * pixel_size(), 0);
}

void Refuse(const std::string &reason) { throw Refusal("not a readable image: " + reason); }

uint64_t PixelLimit() {
  const char *const text = std::getenv(kLimitName);
  if (text == nullptr || *text == '\0') return kPixels;
  const std::string digits = text;
  uint64_t limit = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') {
      limit = 0;
      break;
    }
    limit = std::min<uint64_t>(limit * 10 + static_cast<uint64_t>(digit - '0'), uint64_t{1} << 56);
  }
  if (limit == 0) {
    throw Error(std::string(kLimitName) + "=" + digits + ": expected a number of pixels, such as " +
                std::to_string(10 * kPixels) + ", in digits");
  }
  return limit;
}

void CheckPixels(uint64_t width, uint64_t height) {
  const uint64_t limit = PixelLimit();
  if (height == 0 || width <= limit / height) return;
  char most[40];
  if (limit >= 1000000) {
    std::snprintf(most, sizeof(most), "%.4g million", static_cast<double>(limit) / 1e6);
  } else {
    std::snprintf(most, sizeof(most), "%llu", static_cast<unsigned long long>(limit));
  }
  std::string text = "has " + std::to_string(width) + " x " + std::to_string(height) + " pixels, more than " + most;
  if (width < (uint64_t{1} << 32) && height < (uint64_t{1} << 32)) {
    text += "; if it is not damaged, set " + std::string(kLimitName) + "=" + std::to_string(width * height) +
            " in the environment";
  }
  throw Refusal(text);
}

void Palette::Set(size_t i, uint8_t red, uint8_t green, uint8_t blue) {
  colours_[3 * i] = red;
  colours_[3 * i + 1] = green;
  colours_[3 * i + 2] = blue;
}

void CmykToRgb(const uint8_t *cmyk, uint8_t *rgb) {
  const unsigned light = 255U - cmyk[3];
  for (size_t channel = 0; channel < 3; ++channel) {
    rgb[channel] = static_cast<uint8_t>(light - MultiplyBytes(cmyk[channel], light));
  }
}

}  // namespace stpm
