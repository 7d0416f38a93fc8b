// The directories of TIFF files, which EXIF has, too. Read as Pillow reads them, which passes over what is damaged.
#ifndef STPM_INC_TIFF_TAGS_H_
#define STPM_INC_TIFF_TAGS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "inc/pixels.h"

namespace stpm {

// Those that are read here.
enum TiffTag : uint16_t {
  kSubfileTag = 254,
  kOldSubfileTag = 255,
  kWidthTag = 256,
  kHeightTag = 257,
  kBitsTag = 258,
  kCompressionTag = 259,
  kPhotometricTag = 262,
  kFillOrderTag = 266,
  kStripOffsetsTag = 273,
  kOrientationTag = 274,
  kSamplesTag = 277,
  kRowsPerStripTag = 278,
  kStripBytesTag = 279,
  kPlanarTag = 284,
  kColourMapTag = 320,
  kTileWidthTag = 322,
  kTileHeightTag = 323,
  kTileOffsetsTag = 324,
  kTileBytesTag = 325,
  kInkSetTag = 332,
  kExtraTag = 338,
  kSampleFormatTag = 339,
  kYcbcrFactorsTag = 529,
  kYcbcrSubsamplingTag = 530,
  kReferenceTag = 532,
  kXmpTag = 700,
  kWmpTag = 0xbc01,
};

// The first bytes of a TIFF.
struct TiffHeader {
  bool is_big_endian = false;
  bool is_big_tiff = false;  // places are of 64 bits
  uint64_t first = 0;        // where the first directory stands

  uint64_t Number(const uint8_t *at, size_t size) const;  // 1, 2, 4 or 8 bytes
};

// Returns the header; nothing if this is none, or ends before it does.
std::optional<TiffHeader> ReadTiffHeader(const Bytes &bytes);

// The tags of a directory.
class TiffTags {
 public:
  // Reads a directory as far as it can be read. bytes must outlive this.
  TiffTags(const Bytes &bytes, const TiffHeader &header, uint64_t place);

  uint64_t place() const { return place_; }
  uint64_t next() const { return next_; }  // where the next directory stands; 0: nowhere
  bool Has(uint16_t tag) const { return tags_.count(tag) > 0; }

  // Returns the values of a tag, or nothing if it is not there. Throws Refusal if they are no whole numbers.
  std::optional<std::vector<int64_t>> Integers(uint16_t tag) const;

  // Returns the first of them, or another number if the tag is not there.
  int64_t Integer(uint16_t tag, int64_t usual) const;

  // Returns the first value of a tag if that is a whole number.
  std::optional<int64_t> AnyInteger(uint16_t tag) const;

  // Returns the values of a tag, or nothing if it is not there. Throws Refusal if they are no numbers.
  std::optional<std::vector<double>> Numbers(uint16_t tag) const;

  // Returns the bytes of a tag of bytes.
  std::optional<Bytes> Text(uint16_t tag) const;

 private:
  struct Tag {
    uint16_t type;
    size_t count;
    const uint8_t *data;
  };

  const Tag *Find(uint16_t tag) const;
  std::vector<int64_t> IntegersOf(const Tag &tag) const;

  TiffHeader header_;
  uint64_t place_, next_;
  std::map<uint16_t, Tag> tags_;
};

}  // namespace stpm

#endif  // STPM_INC_TIFF_TAGS_H_
