#include "inc/tiff_samples.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace stpm {
namespace {

using Integers = std::vector<int64_t>;

constexpr size_t kMostSamples = 6;

enum Photometric {
  kWhiteIsZero = 0,
  kBlackIsZero = 1,
  kRgb = 2,
  kColourMap = 3,
  kSeparated = 5,
  kYcbcr = 6,
  kCieLab = 8,
};

std::string PhotometricName(int64_t photometric) {
  switch (photometric) {
    case 0:
    case 1:
      return "grey";
    case 2:
      return "RGB";
    case 3:
      return "a palette";
    case 4:
      return "a transparency mask";
    case 5:
      return "CMYK";
    case 6:
      return "YCbCr";
    case 8:
      return "CIELab";
    case 9:
      return "ICCLab";
    case 10:
      return "ITULab";
    case 32803:
    case 34892:
      return "a sensor's raw colours";
    default:
      return "of photometric interpretation " + std::to_string(photometric);
  }
}

// Returns values as Python writes a tuple.
std::string Listed(const Integers &values) {
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(values[i]);
  return text + (values.size() == 1 ? ",)" : ")");
}

bool AreNear(const TiffTags &tags, uint16_t tag, const std::vector<double> &expected, double tolerance) {
  const std::vector<double> found = tags.Numbers(tag).value_or(expected);
  return std::equal(found.begin(), found.end(), expected.begin(), expected.end(),
                    [=](double one, double other) { return std::abs(one - other) <= tolerance; });
}

bool IsCompressionKnown(int64_t compression) {
  static const int64_t known[] = {1,     2,     3,     4,     5,     6,     7,     8,    32771,
                                  32773, 32809, 32946, 34676, 34677, 34925, 50000, 50001};
  return std::find(std::begin(known), std::end(known), compression) != std::end(known);
}

bool AreAll(const Integers &values, size_t count, int64_t value) {
  return values.size() == count && std::count(values.begin(), values.end(), value) == static_cast<int64_t>(count);
}

uint8_t ReversedBits(uint8_t byte) {
  unsigned reversed = 0;
  for (unsigned bit = 0; bit < 8; ++bit) reversed |= (byte >> bit & 1U) << (7 - bit);
  return static_cast<uint8_t>(reversed);
}

// JPEG's formula, in the whole numbers of Pillow: 6 bits behind the point.
void YcbcrToRgb(uint8_t *pixel) {
  struct Tables {
    std::array<int, 256> red_cr, green_cb, green_cr, blue_cb;
    Tables() {
      for (int i = 0; i < 256; ++i) {
        const auto product = [&](double factor) { return static_cast<int>(factor * 64.0 * (i - 128) + 0.5); };
        const auto place = static_cast<size_t>(i);
        red_cr[place] = product(1.402);
        green_cb[place] = product(-0.34414);
        green_cr[place] = product(-0.71414);
        blue_cb[place] = product(1.772);
      }
    }
  };
  static const Tables tables;
  const auto byte = [](int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); };
  const int y = pixel[0];
  const size_t cb = pixel[1], cr = pixel[2];
  pixel[0] = byte(y + (tables.red_cr[cr] >> 6));
  pixel[1] = byte(y + ((tables.green_cb[cb] + tables.green_cr[cr]) >> 6));
  pixel[2] = byte(y + (tables.blue_cb[cb] >> 6));
}

// Returns a colour as it was before it was multiplied by alpha.
uint8_t Straight(unsigned colour, unsigned alpha) { return static_cast<uint8_t>(std::min(colour * 255 / alpha, 255U)); }

Palette ReadPalette(const TiffTags &tags) {
  const auto values = tags.Integers(kColourMapTag);
  if (!values) RefuseTiffKind(tags, "320");
  const size_t count = values->size() / 3;
  if (count > 256) Refuse("invalid palette size");
  Palette palette;
  const auto upper = [&](size_t i) { return static_cast<uint8_t>((*values)[i] / 256); };
  for (size_t i = 0; i < count; ++i) palette.Set(i, upper(i), upper(count + i), upper(2 * count + i));
  return palette;
}

}  // namespace

void RefuseTiffKind(const TiffTags &tags, const std::string &reason) {
  const auto bits = tags.Integers(kBitsTag);
  Refuse("its pixels are " + PhotometricName(tags.Integer(kPhotometricTag, 0)) + " of " + (bits ? Listed(*bits) : "1") +
         " bits, " + std::to_string(tags.Integer(kSamplesTag, 1)) + " a pixel, extra " +
         Listed(tags.Integers(kExtraTag).value_or(Integers())) + ", which is not read (" + reason + ")");
}

void CheckTiff(const TiffTags &tags) {
  const Integers all_bits = tags.Integers(kBitsTag).value_or(Integers{1});
  const Integers formats = tags.Integers(kSampleFormatTag).value_or(Integers{1});
  const int64_t bits = *std::max_element(all_bits.begin(), all_bits.end());
  const int64_t format = *std::max_element(formats.begin(), formats.end());
  if (format != 1 || (bits != 1 && bits != 2 && bits != 4 && bits != 8 && bits != 16)) {
    const std::string name = format == 1   ? "whole"
                             : format == 2 ? "signed"
                             : format == 3 ? "floating-point"
                                           : "undefined";
    Refuse("its pixels are " + name + " numbers of " + std::to_string(bits) +
           " bits; expected unsigned ones of 8 or 16 bits");
  }
  const int64_t photometric = tags.Integer(kPhotometricTag, 0);
  const int64_t compression = tags.Integer(kCompressionTag, kUncompressed);
  if (tags.Integer(kPlanarTag, 1) == 2 && compression == kUncompressed &&
      (bits != 8 || tags.Integer(kFillOrderTag, 1) != 1 || photometric == kWhiteIsZero)) {
    Refuse("its colours are stored one after the other, in a way that is not read; save them side by side");
  }
  if (photometric == kColourMap) {
    const Integers colours = tags.Integers(kColourMapTag).value_or(Integers{65535});
    if (*std::max_element(colours.begin(), colours.end()) < 256) {
      Refuse("its palette is of 8 bits, where 16 are expected; save it as RGB");
    }
  }
  if (photometric == kSeparated && tags.Integer(kInkSetTag, 1) != 1) Refuse("its inks are not CMYK");
  if (photometric == kYcbcr && compression != kOldJpeg && compression != kJpeg) {
    if (compression == kUncompressed && !AreAll(tags.Integers(kYcbcrSubsamplingTag).value_or(Integers{2, 2}), 2, 1)) {
      Refuse("its colours (YCbCr) are of less resolution than its brightness; save it as RGB");
    }
    if (!AreNear(tags, kYcbcrFactorsTag, {0.299, 0.587, 0.114}, 1e-3)) {
      Refuse("its colours (YCbCr) are not those of JPEG; save it as RGB");
    }
    if (!AreNear(tags, kReferenceTag, {0, 255, 128, 255, 128, 255}, 1)) {
      Refuse("its colours (YCbCr) have a reference black and white of their own; save it as RGB");
    }
  }
}

TiffSamples FindTiffSamples(const TiffTags &tags, bool is_big_endian) {
  if (tags.Has(kWmpTag)) Refuse("Windows Media Photo files not yet supported");
  const int64_t compression = tags.Integer(kCompressionTag, kUncompressed);
  if (!IsCompressionKnown(compression)) RefuseTiffKind(tags, std::to_string(compression));
  const bool is_old_jpeg = compression == kOldJpeg;
  const int64_t photometric = is_old_jpeg ? int64_t{kYcbcr} : tags.Integer(kPhotometricTag, 0);
  const int64_t planar = tags.Integer(kPlanarTag, 1), fill_order = tags.Integer(kFillOrderTag, 1);
  Integers bits = tags.Integers(kBitsTag).value_or(Integers{1});
  Integers extra = tags.Integers(kExtraTag).value_or(Integers());
  int64_t count = tags.Integer(kSamplesTag, is_old_jpeg ? 3 : 1);
  // further samples that mean nothing, each kind in its own part of the file
  if (planar == 2 && !extra.empty() && *std::max_element(extra.begin(), extra.end()) == 0) {
    bits.resize(bits.size() - std::min(bits.size(), extra.size()));
    count -= static_cast<int64_t>(extra.size());
    extra.clear();
  }
  if (count > static_cast<int64_t>(kMostSamples)) RefuseTiffKind(tags, "Invalid value for samples per pixel");
  if (count < 0) RefuseTiffKind(tags, "unknown data organization");
  const auto samples = static_cast<size_t>(count);
  if (samples < bits.size()) {
    bits.resize(samples);
  } else if (samples > bits.size() && bits.size() == 1) {
    bits.resize(samples, bits.front());
  }
  if (bits.size() != samples || samples == 0) RefuseTiffKind(tags, "unknown data organization");
  const Integers formats = tags.Integers(kSampleFormatTag).value_or(Integers{1});
  const int64_t depth = bits.front();
  const bool is_unsigned = std::all_of(formats.begin(), formats.end(), [](int64_t one) { return one == 1; });
  const bool is_order_known = fill_order == 1 || fill_order == 2;
  const bool is_depth_known = depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
  if (!is_unsigned || !is_order_known || !is_depth_known || !AreAll(bits, samples, depth))
    RefuseTiffKind(tags, "unknown pixel mode");

  TiffSamples found;
  found.bits = static_cast<unsigned>(depth);
  found.count = samples;
  found.is_planar = planar == 2;
  found.is_bit_reversed = fill_order == 2;
  found.is_big_endian = is_big_endian;
  const bool is_reversed = found.is_bit_reversed;
  const size_t behind = extra.size();
  const bool is_alone = samples == 1 && behind == 0;
  const bool is_byte = depth == 8, is_word = depth == 16;
  const auto is_ignored = [&](size_t from) {
    return std::all_of(extra.begin() + static_cast<std::ptrdiff_t>(from), extra.end(),
                       [](int64_t i) { return i == 0; });
  };
  bool is_read = false;
  switch (photometric) {
    case kWhiteIsZero:
    case kBlackIsZero:
      found.is_inverted = photometric == kWhiteIsZero;
      if (samples == 2 && behind == 1) {
        is_read = !found.is_inverted && is_byte && !is_reversed && 0 <= extra[0] && extra[0] <= 2;
        if (extra[0] > 0) {
          found.form = TiffSamples::Form::kGreyAlpha;
          found.alpha = extra[0] == 1 ? TiffSamples::Alpha::kAssociated : TiffSamples::Alpha::kStraight;
        }
      } else {
        is_read = is_alone && (!is_word || !is_reversed || (!is_big_endian && photometric == kBlackIsZero));
      }
      break;
    case kRgb:
      found.form = TiffSamples::Form::kColours;
      if (samples == 3) {
        is_read = behind == 0 && (is_byte || (is_word && !is_reversed));
      } else if (samples >= 4 && behind == 0) {  // without a word on what it is
        found.alpha = TiffSamples::Alpha::kStraight;
        is_read = samples == 4 && (is_byte || is_word) && !is_reversed;
      } else if (samples >= 4 && behind == samples - 3) {
        found.alpha = extra[0] == 0   ? TiffSamples::Alpha::kNone
                      : extra[0] == 1 ? TiffSamples::Alpha::kAssociated
                                      : TiffSamples::Alpha::kStraight;
        const bool is_known = (0 <= extra[0] && extra[0] <= 2) || (extra[0] == 999 && is_byte && samples == 4);
        is_read = is_known && is_ignored(1) && (is_byte || (is_word && samples == 4)) && !is_reversed;
      }
      break;
    case kColourMap:
      found.form = TiffSamples::Form::kPalette;
      if (samples == 2 && behind == 1 && extra[0] == 2 && is_byte && !is_reversed) {
        Refuse("its pixels are a palette with alpha; save it as RGBA");
      }
      is_read = (is_alone && depth <= 8) || (samples == 2 && behind == 1 && extra[0] == 0 && is_byte && !is_reversed);
      if (is_read) found.palette = ReadPalette(tags);
      break;
    case kSeparated:
      found.form = TiffSamples::Form::kCmyk;
      is_read = samples >= 4 && behind == samples - 4 && is_ignored(0) && (is_byte || (is_word && samples == 4)) &&
                !is_reversed;
      break;
    case kYcbcr:
      found.form = TiffSamples::Form::kYcbcr;
      is_read = samples == 3 && behind == 0 && is_byte && !is_reversed;
      break;
    case kCieLab:
      if (samples == 3 && behind == 0 && is_byte && !is_reversed) {
        Refuse("its pixels are CIELab, which Python alone reads here; save it as RGB");
      }
      break;
    default:
      break;
  }
  if (!is_read) RefuseTiffKind(tags, "unknown pixel mode");
  return found;
}

Pixels::Kind TiffSamples::kind() const {
  switch (form) {
    case Form::kGrey:
      return bits == 16 ? Pixels::Kind::kGrey16 : Pixels::Kind::kGrey;
    case Form::kGreyAlpha:
      return Pixels::Kind::kRgba;
    case Form::kColours:
      return alpha == Alpha::kNone ? Pixels::Kind::kRgb : Pixels::Kind::kRgba;
    default:
      return Pixels::Kind::kRgb;
  }
}

size_t TiffSamples::bands() const {
  switch (form) {
    case Form::kGreyAlpha:
      return 2;
    case Form::kColours:
      return alpha == Alpha::kNone ? 3 : 4;
    case Form::kCmyk:
      return 4;
    case Form::kYcbcr:
      return 3;
    default:
      return 1;
  }
}

size_t TiffSamples::pixel_size() const {
  switch (form) {
    case Form::kGrey:
      return bits == 16 ? 2 : 1;
    case Form::kPalette:
      return 3;
    default:
      return bands() == 3 ? 3 : 4;
  }
}

void TiffSamples::Unpack(const uint8_t *row, size_t width, size_t band, uint8_t *pixels) const {
  const auto byte = [&](size_t i) { return is_bit_reversed ? ReversedBits(row[i]) : row[i]; };
  if (form == Form::kGrey && bits == 16) {
    for (size_t x = 0; x < width; ++x) {
      const unsigned first = byte(2 * x), second = byte(2 * x + 1);
      const auto level = static_cast<uint16_t>(is_big_endian ? first << 8 | second : second << 8 | first);
      std::memcpy(pixels + 2 * x, &level, sizeof(level));
    }
    return;
  }
  if (form == Form::kGrey || form == Form::kPalette) {
    const unsigned largest = (1U << bits) - 1;
    for (size_t x = 0; x < width; ++x) {
      const uint8_t whole = byte(x * count * bits / 8);
      const unsigned value = bits == 8 ? whole : PackedBits(&whole, x % (8 / bits), bits);
      if (form == Form::kPalette) {
        pixels = std::copy_n((*palette)[value], 3, pixels);
      } else {
        const unsigned level = value * 255 / largest;
        *pixels++ = static_cast<uint8_t>(is_inverted ? 255 - level : level);
      }
    }
    return;
  }
  // of 16 bits the upper 8 count
  const size_t size = bits / 8, upper = bits == 16 && !is_big_endian ? 1 : 0;
  const size_t step = is_planar ? size : count * size;
  const size_t first = is_planar ? band : 0, last = is_planar ? band + 1 : bands();
  const size_t pixel = pixel_size();
  for (size_t x = 0; x < width; ++x, row += step, pixels += pixel) {
    for (size_t i = first; i < last; ++i) pixels[i] = byte((i - first) * size + upper);
  }
}

void TiffSamples::Finish(uint8_t *pixels, size_t count_of_pixels) const {
  if (form == Form::kYcbcr) {
    for (size_t i = 0; i < count_of_pixels; ++i) YcbcrToRgb(pixels + 3 * i);
  } else if (form == Form::kCmyk) {
    for (size_t i = 0; i < count_of_pixels; ++i) CmykToRgb(pixels + 4 * i, pixels + 3 * i);
  } else if (form == Form::kGreyAlpha) {
    for (size_t i = 0; i < count_of_pixels; ++i, pixels += 4) {
      const uint8_t opacity = pixels[1];
      if (alpha == Alpha::kAssociated && opacity > 0) pixels[0] = Straight(pixels[0], opacity);
      pixels[1] = pixels[2] = pixels[0];
      pixels[3] = opacity;
    }
  } else if (form == Form::kColours && alpha == Alpha::kAssociated) {
    for (size_t i = 0; i < count_of_pixels; ++i, pixels += 4) {
      for (size_t channel = 0; channel < 3; ++channel) {
        pixels[channel] = pixels[3] == 0 ? 0 : Straight(pixels[channel], pixels[3]);
      }
    }
  }
}

}  // namespace stpm
