#include "inc/bmp_picture.h"

#include <algorithm>
#include <cstring>

namespace stpm {
namespace {

constexpr size_t kFileHeaderSize = 14;
enum Compression : uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

struct Header {
  uint64_t width = 0, height = 0;
  bool is_top_down = false;
  unsigned bits = 0;
  uint32_t compression = kRaw;
  size_t colours = 0;      // of the palette
  size_t colour_size = 0;  // bytes
  uint32_t masks[4] = {};  // of red, green, blue, alpha
  size_t end = 0;          // where what follows begins: the palette
};

// In which byte of a pixel each colour stands, and alpha, if there is any.
struct Layout {
  size_t bytes = 0;
  int red = 0, green = 0, blue = 0, alpha = -1;
};

[[noreturn]] void RefuseShort() { Refuse("Truncated File Read"); }

Header ReadHeader(const Bytes &file) {
  Header header;
  if (!file.Has(kFileHeaderSize, 4)) RefuseShort();
  const uint8_t *const at = file.data + kFileHeaderSize;
  const uint32_t size = LittleEndian32(at);
  if (!file.Has(kFileHeaderSize, std::max(size, 4U))) RefuseShort();
  header.end = kFileHeaderSize + size;
  if (size == 12) {  // OS/2's
    header.width = LittleEndian16(at + 4);
    header.height = LittleEndian16(at + 6);
    header.bits = LittleEndian16(at + 10);
    header.colour_size = 3;
  } else if (size == 40 || size == 52 || size == 56 || size == 64 || size == 108 || size == 124) {
    header.is_top_down = at[11] == 0xff;
    header.width = LittleEndian32(at + 4);
    header.height = LittleEndian32(at + 8);
    if (header.is_top_down) header.height = (uint64_t{1} << 32) - header.height;
    header.bits = LittleEndian16(at + 14);
    header.compression = LittleEndian32(at + 16);
    header.colours = LittleEndian32(at + 32);
    header.colour_size = 4;
    if (header.compression == kBitFields) {
      const bool is_behind = size == 40;  // behind the header, which has no room for them
      const size_t masks = is_behind || size == 52 ? 3 : 4;
      if (is_behind) {
        if (!file.Has(header.end, 12)) RefuseShort();
        header.end += 12;
      }
      for (size_t i = 0; i < masks; ++i) header.masks[i] = LittleEndian32(at + 40 + 4 * i);
    }
  } else {
    Refuse("Unsupported BMP header type (" + std::to_string(size) + ")");
  }
  if (header.colours == 0 && header.bits < 32) header.colours = size_t{1} << header.bits;
  return header;
}

// Colours of fields of whole bytes, by the masks that are read.
Layout FindLayout(const Header &header) {
  if (header.bits == 24) return {3, 2, 1, 0, -1};
  const Layout usual = {4, 2, 1, 0, -1};
  if (header.compression == kRaw) return usual;
  static const struct {
    uint32_t masks[4];
    Layout layout;
  } kinds[] = {
      {{0xff0000, 0xff00, 0xff, 0}, {4, 2, 1, 0, -1}},         {{0xff000000, 0xff0000, 0xff00, 0}, {4, 3, 2, 1, -1}},
      {{0xff000000, 0xff00, 0xff, 0}, {4, 3, 1, 0, -1}},       {{0xff000000, 0xff0000, 0xff00, 0xff}, {4, 3, 2, 1, 0}},
      {{0xff, 0xff00, 0xff0000, 0xff000000}, {4, 0, 1, 2, 3}}, {{0xff0000, 0xff00, 0xff, 0xff000000}, {4, 2, 1, 0, 3}},
      {{0xff000000, 0xff00, 0xff, 0xff0000}, {4, 3, 1, 0, 2}}, {{0, 0, 0, 0}, {4, 2, 1, 0, 3}},
  };
  for (const auto &kind : kinds) {
    if (std::equal(kind.masks, kind.masks + 4, header.masks)) return kind.layout;
  }
  Refuse("Unsupported BMP bitfields layout");
}

bool HasMasks(const Header &header, uint32_t red, uint32_t green, uint32_t blue) {
  return header.masks[0] == red && header.masks[1] == green && header.masks[2] == blue;
}

// Returns numbers of colours, a byte each, of the rows as they lie in the file; all of them, or it refuses.
std::vector<uint8_t> ReadRuns(const Bytes &file, size_t at, const Header &header, size_t width, size_t height) {
  const size_t count = width * height;
  const bool is_rle4 = header.compression == kRle4;
  std::vector<uint8_t> numbers;
  numbers.reserve(count);
  size_t x = 0;  // where a run would begin
  while (numbers.size() < count && file.Has(at, 2)) {
    const size_t length = file.data[at];
    const uint8_t value = file.data[at + 1];
    at += 2;
    if (length > 0) {  // what is too long for the row is left out
      const size_t fitting = std::min(length, width - std::min(x, width));
      for (size_t i = 0; i < fitting; ++i) {
        numbers.push_back(!is_rle4 ? value : i % 2 == 0 ? value >> 4 : value & 15);
      }
      x += fitting;
    } else if (value == 0) {  // the end of a row
      numbers.resize((numbers.size() + width - 1) / width * width);
      x = 0;
    } else if (value == 1) {  // the end of the picture
      break;
    } else if (value == 2) {  // a jump
      if (!file.Has(at, 2)) break;
      const size_t jump = file.data[at] + file.data[at + 1] * width;
      at += 2;
      numbers.resize(numbers.size() + std::min(count - numbers.size(), jump));
      x = numbers.size() % width;
    } else {  // single values
      const size_t singles = std::min<size_t>(count - numbers.size(), value);
      const size_t bytes = is_rle4 ? (singles + 1) / 2 : singles;
      const size_t found = std::min(bytes, file.size - at);
      for (size_t i = 0; i < found; ++i) {
        const uint8_t byte = file.data[at + i];
        numbers.push_back(is_rle4 ? byte >> 4 : byte);
        if (is_rle4 && 2 * i + 1 < singles) numbers.push_back(byte & 15);
      }
      if (found < bytes || numbers.size() == count) break;
      x += value;
      at += bytes;
      at += at % 2;
    }
  }
  if (numbers.size() < count) Refuse("not enough image data");
  numbers.resize(count);
  return numbers;
}

// Checks that the rows are there, and returns the bytes from one to the next.
size_t FindStride(const Bytes &file, uint64_t at, const Header &header) {
  const uint64_t row_bits = header.width * header.bits;
  const uint64_t stride = (row_bits + 31) / 32 * 4, row_bytes = (row_bits + 7) / 8;
  if (!file.Has(at, stride * (header.height - 1) + row_bytes)) Refuse("image file is truncated");
  return stride;
}

// Numbers of colours become colours; levels of grey, where the palette says so, stay.
void TakeNumbers(const Bytes &file, const Header &header, uint64_t place, Pixels *pixels) {
  if (header.colours == 0 || header.colours > 65536) {
    Refuse("Unsupported BMP Palette size (" + std::to_string(header.colours) + ")");
  }
  const auto width = static_cast<size_t>(header.width), height = static_cast<size_t>(header.height);
  const size_t found = file.size > header.end ? (file.size - header.end) / header.colour_size : 0;
  const auto colour = [&](size_t i) { return file.data + header.end + i * header.colour_size; };
  bool is_grey = header.colours <= found;
  for (size_t i = 0; i < header.colours && is_grey; ++i) {
    const size_t level = header.colours == 2 ? i * 255 : i & 255;
    is_grey = colour(i)[0] == level && colour(i)[1] == level && colour(i)[2] == level;
  }
  const unsigned expected = !is_grey ? header.bits : header.colours <= 2 ? 1 : 8;
  if (header.bits != expected) {
    Refuse("its pixels are of " + std::to_string(header.bits) + " bits, with a palette for " +
           std::to_string(expected) + "; save it as PNG");
  }
  Palette palette;
  if (!is_grey && std::min(header.colours, found) > 256) Refuse("invalid palette size");
  for (size_t i = 0; i < std::min<size_t>({header.colours, found, 256}) && !is_grey; ++i) {
    palette.Set(i, colour(i)[2], colour(i)[1], colour(i)[0]);
  }
  CheckPixels(header.width, header.height);
  pixels->Allocate(is_grey ? Pixels::Kind::kGrey : Pixels::Kind::kRgb, width, height);
  const bool is_packed = header.compression == kRle8 || header.compression == kRle4;
  std::vector<uint8_t> unpacked;
  if (is_packed) {
    unpacked = ReadRuns(file, static_cast<size_t>(std::min<uint64_t>(place, file.size)), header, width, height);
  }
  const size_t stride = is_packed ? width : FindStride(file, place, header);
  const uint8_t *const rows = is_packed ? unpacked.data() : file.data + place;
  const unsigned bits = is_packed ? 8 : header.bits;
  const bool is_black_or_white = is_grey && header.bits == 1;
  for (size_t y = 0; y < height; ++y) {
    const uint8_t *const row = rows + (header.is_top_down ? y : height - 1 - y) * stride;
    uint8_t *to = pixels->Row(y);
    for (size_t x = 0; x < width; ++x) {
      const unsigned number = PackedBits(row, x, bits);
      if (is_grey) {
        *to++ = static_cast<uint8_t>(!is_black_or_white ? number : number == 0 ? 0 : 255);
      } else {
        to = std::copy_n(palette[number], 3, to);
      }
    }
  }
}

void TakeColours(const Bytes &file, const Header &header, uint64_t place, Pixels *pixels) {
  CheckPixels(header.width, header.height);
  const bool is_short = header.bits == 16;
  bool is_565 = false;
  Layout layout;
  if (header.compression == kBitFields && header.bits != 32) {
    is_565 = is_short && HasMasks(header, 0xf800, 0x7e0, 0x1f);
    const bool is_usual = is_short ? HasMasks(header, 0x7c00, 0x3e0, 0x1f) : HasMasks(header, 0xff0000, 0xff00, 0xff);
    if (!is_565 && !is_usual) Refuse("Unsupported BMP bitfields layout");
  }
  if (!is_short) layout = FindLayout(header);
  const size_t stride = FindStride(file, place, header);
  const auto width = static_cast<size_t>(header.width), height = static_cast<size_t>(header.height);
  pixels->Allocate(layout.alpha < 0 ? Pixels::Kind::kRgb : Pixels::Kind::kRgba, width, height);
  for (size_t y = 0; y < height; ++y) {
    const uint8_t *from = file.data + place + (header.is_top_down ? y : height - 1 - y) * stride;
    uint8_t *to = pixels->Row(y);
    for (size_t x = 0; x < width; ++x) {
      if (is_short) {
        const uint32_t fields = LittleEndian16(from);
        const uint32_t green = is_565 ? (fields >> 5 & 63) * 255 / 63 : (fields >> 5 & 31) * 255 / 31;
        *to++ = static_cast<uint8_t>((fields >> (is_565 ? 11 : 10) & 31) * 255 / 31);
        *to++ = static_cast<uint8_t>(green);
        *to++ = static_cast<uint8_t>((fields & 31) * 255 / 31);
        from += 2;
        continue;
      }
      *to++ = from[layout.red];
      *to++ = from[layout.green];
      *to++ = from[layout.blue];
      if (layout.alpha >= 0) *to++ = from[layout.alpha];
      from += layout.bytes;
    }
  }
}

}  // namespace

bool IsBmp(const Bytes &file) { return file.size >= 2 && std::memcmp(file.data, "BM", 2) == 0; }

Pixels DecodeBmp(const Bytes &file) {
  const Header header = ReadHeader(file);
  const unsigned bits = header.bits;
  const bool has_palette = bits == 1 || bits == 4 || bits == 8;
  if (!has_palette && bits != 16 && bits != 24 && bits != 32) {
    Refuse("Unsupported BMP pixel depth (" + std::to_string(bits) + ")");
  }
  if (header.compression > kBitFields) {
    Refuse("Unsupported BMP compression (" + std::to_string(header.compression) + ")");
  }
  if (header.compression == kBitFields && has_palette) Refuse("Unsupported BMP bitfields layout");
  if (header.compression != kRaw && header.compression != kBitFields && !has_palette) {
    Refuse("its runs are of " + std::to_string(bits) + " bits, expected 8 or 4; save it as PNG");
  }
  // the place of the pixels; where that is the palette's, or none, they stand behind it
  uint64_t place = LittleEndian32(file.data + 10);
  const bool is_header_end = place == kFileHeaderSize + LittleEndian32(file.data + kFileHeaderSize);
  const uint64_t palette_size = static_cast<uint64_t>(header.colours) * header.colour_size;
  if (is_header_end && bits <= 8) place += palette_size;
  if (place == 0) place = header.end + (has_palette ? palette_size : 0);
  if (header.width == 0 || header.height == 0) Refuse("not identified by this driver");
  Pixels pixels;
  if (has_palette) {
    TakeNumbers(file, header, place, &pixels);
  } else {
    TakeColours(file, header, place, &pixels);
  }
  return pixels;
}

}  // namespace stpm
