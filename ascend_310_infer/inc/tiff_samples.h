// Which pixels of TIFF files are read, and how rows of samples become pixels.
#ifndef STPM_INC_TIFF_SAMPLES_H_
#define STPM_INC_TIFF_SAMPLES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "inc/pixels.h"
#include "inc/tiff_tags.h"

namespace stpm {

enum TiffCompression { kUncompressed = 1, kOldJpeg = 6, kJpeg = 7 };

// Pixels of a kind that is read.
struct TiffSamples {
  enum class Form { kGrey, kPalette, kGreyAlpha, kColours, kCmyk, kYcbcr };
  enum class Alpha { kNone, kStraight, kAssociated };

  Form form = Form::kGrey;
  unsigned bits = 8;             // of a sample
  size_t count = 1;              // samples of a pixel, with those that are left out
  Alpha alpha = Alpha::kNone;    // behind grey or the colours
  bool is_inverted = false;      // 0 is white
  bool is_planar = false;        // samples of a kind stand together
  bool is_bit_reversed = false;  // the first pixel is in the lowest bits
  bool is_big_endian = false;    // of 16 bits
  std::optional<Palette> palette;

  Pixels::Kind kind() const;  // of the pixels that they become
  size_t bands() const;       // samples of a pixel that are not left out
  size_t row_bytes(size_t width) const { return (width * (is_planar ? 1 : count) * bits + 7) / 8; }

  // Turns a row of samples into pixels; of planar ones the samples of one band, from 0 on, others staying.
  void Unpack(const uint8_t *row, size_t width, size_t band, uint8_t *pixels) const;

  // Turns pixels, once all their bands are there, into what they mean.
  void Finish(uint8_t *pixels, size_t count_of_pixels) const;

  // Returns the bytes of a pixel before Finish.
  size_t pixel_size() const;
};

// Throws the Refusal of pixels of a kind that is not read, for a reason.
[[noreturn]] void RefuseTiffKind(const TiffTags &tags, const std::string &reason);

// Throws Refusal if the pixels of a directory are numbers of a kind that cannot be right.
void CheckTiff(const TiffTags &tags);

// Returns how the pixels of a directory are read. Throws Refusal.
TiffSamples FindTiffSamples(const TiffTags &tags, bool is_big_endian);

}  // namespace stpm

#endif  // STPM_INC_TIFF_SAMPLES_H_
