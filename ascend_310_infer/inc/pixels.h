// What the decoders of picture files share: their result, and how they refuse.
#ifndef STPM_INC_PIXELS_H_
#define STPM_INC_PIXELS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "inc/picture.h"

namespace stpm {

// A picture file in memory.
struct Bytes {
  const uint8_t *data = nullptr;
  size_t size = 0;

  // Tells whether there are length bytes from place on; no sum overflows.
  bool Has(uint64_t place, uint64_t length) const { return place <= size && length <= size - place; }
};

// Returns a text as a file; it must outlive that.
inline Bytes AsBytes(const std::string &text) { return {reinterpret_cast<const uint8_t *>(text.data()), text.size()}; }

// Numbers as they stand in files.
inline uint32_t BigEndian16(const uint8_t *at) { return static_cast<uint32_t>(at[0] << 8 | at[1]); }
inline uint32_t BigEndian32(const uint8_t *at) { return BigEndian16(at) << 16 | BigEndian16(at + 2); }
inline uint32_t LittleEndian16(const uint8_t *at) { return static_cast<uint32_t>(at[1] << 8 | at[0]); }
inline uint32_t LittleEndian32(const uint8_t *at) { return LittleEndian16(at + 2) << 16 | LittleEndian16(at); }

// The pixels of a file, as they lie in it.
struct Pixels {
  enum class Kind { kGrey, kGrey16, kRgb, kRgba };  // kGrey16: of two bytes, in this machine's order

  Kind kind = Kind::kRgb;
  size_t width = 0, height = 0;
  std::vector<uint8_t> bytes;           // rows from the top, without gaps
  int orientation = 1;                  // EXIF's, 1 to 8
  bool is_deep = false;                 // of 16 bits in the file
  bool is_inverted = false;             // of kGrey16: 0 is white
  std::optional<uint16_t> transparent;  // of kGrey16: the value that is transparent
  std::vector<Remark> remarks;

  size_t pixel_size() const { return kind == Kind::kGrey ? 1 : kind == Kind::kGrey16 ? 2 : kind == Kind::kRgb ? 3 : 4; }
  uint8_t *Row(size_t y) { return bytes.data() + y * width * pixel_size(); }

  // Makes room for black pixels.
  void Allocate(Kind new_kind, size_t new_width, size_t new_height);
};

// Why a picture is refused: what stands behind its name and a colon.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Pillow's words for data that cannot be decoded.
constexpr char kBroken[] = "broken data stream when reading image file";

// Throws the Refusal of a picture that is not readable for a reason.
[[noreturn]] void Refuse(const std::string &reason);

// Throws a Refusal if a picture has more pixels than a picture may have.
void CheckPixels(uint64_t width, uint64_t height);

// Returns how many pixels that is, which STPM_MAX_PIXELS of the environment changes. Throws Error if it is no number.
uint64_t PixelLimit();

// A palette of 256 colours; those that a file does not give are black.
class Palette {
 public:
  void Set(size_t i, uint8_t red, uint8_t green, uint8_t blue);
  const uint8_t *operator[](size_t i) const { return &colours_[3 * i]; }

 private:
  std::array<uint8_t, 3 * 256> colours_ = {};
};

// Writes the colours of CMYK, 255 is full ink, as RGB.
void CmykToRgb(const uint8_t *cmyk, uint8_t *rgb);

// Returns colour * alpha / 255, rounded.
inline uint8_t MultiplyBytes(unsigned colour, unsigned alpha) {
  const unsigned product = colour * alpha + 128;
  return static_cast<uint8_t>((product + (product >> 8)) >> 8);
}

// Returns bits bits of a row, from the i-th such on, the highest first; at most 8.
inline unsigned PackedBits(const uint8_t *row, size_t i, unsigned bits) {
  const size_t place = i * bits;
  return (row[place / 8] >> (8 - bits - place % 8)) & ((1U << bits) - 1);
}

}  // namespace stpm

#endif  // STPM_INC_PIXELS_H_
