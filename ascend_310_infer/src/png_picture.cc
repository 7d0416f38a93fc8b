#include "inc/png_picture.h"

#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "inc/orientation.h"

namespace stpm {
namespace {

constexpr char kSignature[] = "\x89PNG\r\n\x1a\n";
constexpr size_t kSignatureSize = sizeof(kSignature) - 1;
constexpr size_t kFrameSize = 12;          // of a part, around its content: length, name, checksum
constexpr size_t kLongestText = 1U << 22;  // bytes of metadata that are looked at
constexpr size_t kHeaderSize = 13;
constexpr char kTruncated[] = "truncated: its end is missing";
constexpr char kTooFewPixels[] = "image file is truncated (0 bytes not processed)";

enum ColourType : uint8_t { kGrey = 0, kRgb = 2, kPalette = 3, kGreyAlpha = 4, kRgba = 6 };

struct Part {
  std::string name;
  Bytes content;
};

// What pixels depend on, and what is told of them.
struct Contents {
  Bytes header;
  Bytes palette, transparency;
  bool has_transparency = false;
  std::vector<Bytes> pixels;  // of the first row of parts that hold them
  Bytes exif;
  std::string profile_exif, xmp;  // from texts
  std::vector<std::string> problems;
};

bool IsAround(const std::string &name) {
  static const char *const names[] = {"cHRM", "gAMA", "iCCP", "sBIT", "sRGB", "cICP", "mDCV", "cLLI", "bKGD", "hIST",
                                      "pHYs", "sPLT", "eXIf", "tIME", "tEXt", "zTXt", "iTXt", "oFFs", "pCAL", "sCAL"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// Returns a name as Python writes it; what is no letter becomes an escape.
std::string Quoted(const std::string &name) {
  std::string text;
  for (const char letter : name) {
    const auto code = static_cast<unsigned char>(letter);
    if (code >= 0x80) {
      text += "\xef\xbf\xbd";  // as what is no UTF-8
    } else if (code < 0x20 || code == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\x%02x", static_cast<unsigned>(code));
      text += escape;
    } else {
      text += letter == '\\' ? "\\\\" : std::string(1, letter);
    }
  }
  return "'" + text + "'";
}

// Returns the beginning of what a zlib stream holds; nothing if it is damaged.
std::string Unpacked(const Bytes &packed) {
  z_stream stream = {};
  if (inflateInit(&stream) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream *)> end(&stream, inflateEnd);
  std::string text;
  unsigned char block[1U << 14];
  stream.next_in = const_cast<unsigned char *>(packed.data);
  stream.avail_in = static_cast<uInt>(packed.size);
  int status = Z_OK;
  while (status == Z_OK && text.size() < kLongestText) {
    stream.next_out = block;
    stream.avail_out = static_cast<uInt>(std::min(sizeof(block), kLongestText - text.size()));
    const uInt room = stream.avail_out;
    status = inflate(&stream, Z_SYNC_FLUSH);
    text.append(reinterpret_cast<char *>(block), room - stream.avail_out);
    if (status == Z_BUF_ERROR) break;  // it ends early
    if (status != Z_OK && status != Z_STREAM_END) return "";
  }
  return text;
}

// Takes one of the two texts that may hold an orientation.
void TakeText(const Part &part, Contents *contents) {
  const std::string content(reinterpret_cast<const char *>(part.content.data), part.content.size);
  const size_t end = content.find('\0');
  const std::string name = content.substr(0, end);
  std::string *const to = name == "Raw profile type exif" ? &contents->profile_exif
                          : name == "XML:com.adobe.xmp"   ? &contents->xmp
                                                          : nullptr;
  if (to == nullptr) return;
  std::string text = end == std::string::npos ? "" : content.substr(end + 1);
  const bool is_packed = part.name == "zTXt" || (part.name == "iTXt" && !text.empty() && text[0] == '\1');
  if (part.name == "zTXt") text.erase(0, 1);
  if (part.name == "iTXt") {  // behind language and translated name, where they are there
    text.erase(0, 2);
    for (int fields = 0; fields < 2; ++fields) {
      const size_t next = text.find('\0');
      if (next == std::string::npos) break;
      text.erase(0, next + 1);
    }
  }
  if (!is_packed) {
    *to = text;
    return;
  }
  const std::string unpacked = Unpacked(AsBytes(text));
  if (!unpacked.empty()) *to = unpacked;
}

// Returns the EXIF of a text as ImageMagick writes it: a name, a length, hexadecimal digits.
std::string ProfileExif(const std::string &text) {
  size_t start = 0;
  for (int lines = 0; lines < 3; ++lines) {
    const size_t end = text.find('\n', start);
    if (end == std::string::npos) return "";
    start = end + 1;
  }
  std::string exif;
  int upper = -1;
  for (const char letter : text.substr(start)) {
    if (letter == '\n' || (upper < 0 && std::strchr(" \t\r\v\f", letter) != nullptr && letter != '\0')) continue;
    const char *const digits = "0123456789abcdef";
    const char *const digit =
        letter == '\0' ? nullptr : std::strchr(digits, letter | ('A' <= letter && letter <= 'F' ? 0x20 : 0));
    if (digit == nullptr) return "";
    const int value = static_cast<int>(digit - digits);
    if (upper >= 0) exif += static_cast<char>(upper << 4 | value);
    upper = upper >= 0 ? -1 : value;
  }
  return upper < 0 ? exif : "";
}

// Checks the checksums of a PNG's parts, of which libpng would stop at more than pixels need, and finds what matters.
Contents ReadParts(const Bytes &file) {
  Contents contents;
  uint64_t frames = 0;
  bool is_frame = false, has_pixels = false, are_pixels_over = false;
  for (size_t start = kSignatureSize;;) {
    if (!file.Has(start, kFrameSize)) Refuse(kTruncated);
    const uint32_t length = BigEndian32(file.data + start);
    if (!file.Has(start + kFrameSize, length)) Refuse(kTruncated);
    const uint8_t *const at = file.data + start + 4;
    const Part part = {std::string(reinterpret_cast<const char *>(at), 4), {at + 4, length}};
    const bool is_header = part.name == "IHDR";
    if (start == kSignatureSize && (!is_header || length != kHeaderSize)) Refuse("damaged: its header is missing");
    const size_t here = start;
    start += kFrameSize + length;
    if (crc32(crc32(0, nullptr, 0), at, length + 4) != BigEndian32(at + 4 + length)) {
      if (!IsAround(part.name)) Refuse("damaged: wrong checksum in the part at byte " + std::to_string(here));
      contents.problems.push_back("a wrong checksum in its part " + part.name);
      continue;
    }
    if (is_header) {
      if (contents.header.size > 0) Refuse("damaged: it has two headers");
      contents.header = part.content;
    } else if (part.name == "PLTE") {
      if (!has_pixels) contents.palette = part.content;
      are_pixels_over = has_pixels;
    } else if (part.name == "tRNS") {
      contents.transparency = part.content;
      contents.has_transparency = true;
      are_pixels_over = has_pixels;
    } else if (part.name == "IDAT") {
      if (!are_pixels_over) contents.pixels.push_back(part.content);
      has_pixels = true;
    } else if (part.name == "IEND") {
      break;
    } else if ((part.name[0] & 0x20) == 0) {  // a capital letter: not to be passed over
      Refuse("has a part " + Quoted(part.name) + ", which no PNG needs");
    } else if (part.name == "acTL") {
      uint64_t count = 0;
      for (size_t i = 0; i < std::min<size_t>(length, 4); ++i) count = count << 8 | part.content.data[i];
      frames += count;
    } else if (part.name == "fcTL") {
      is_frame = is_frame || !has_pixels;
    } else if (part.name == "eXIf") {
      contents.exif = part.content;
    } else if (part.name == "tEXt" || part.name == "zTXt" || part.name == "iTXt") {
      TakeText(part, &contents);
    }
  }
  const uint64_t pages = frames > 0 ? frames + 1 - (is_frame ? 1 : 0) : 1;
  if (pages > 1) {
    Refuse("holds " + std::to_string(pages) + " pages or frames; expected one, or each in a file of its own");
  }
  return contents;
}

// libpng, which reads the rows of a PNG made of the pixels' parts alone. It sees levels where there are numbers of
// colours: they are as many bits.
class Rows {
 public:
  Rows(const Contents &contents, uint8_t colour_type) : pixels_(contents.pixels) {
    std::string header(reinterpret_cast<const char *>(contents.header.data), kHeaderSize);
    if (colour_type == kPalette) header[9] = static_cast<char>(kGrey);
    header[10] = '\0';                           // there is one way to compress
    header[12] = header[12] == '\0' ? '\0' : 1;  // and one to interlace
    start_ = std::string(kSignature) + Framed("IHDR", header);
    end_ = Framed("IEND", "");
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, OnError, [](png_structp, png_const_charp) {});
    info_ = png_ == nullptr ? nullptr : png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~Rows() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Rows(const Rows &) = delete;
  Rows &operator=(const Rows &) = delete;

  // Reads all rows, from the top. Throws Refusal.
  void Read(size_t row_bytes, uint8_t *const *rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) Refuse(problem_);  // no destructor is passed over: what follows is C
    png_set_read_fn(png_, this, OnRead);
    png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);  // they are checked already
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_benign_errors(png_, 1);
    png_set_option(png_, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);  // as for files that state too small a one
    png_read_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != row_bytes) png_error(png_, "size");
    png_set_interlace_handling(png_);
    png_start_read_image(png_);
    png_read_image(png_, const_cast<png_bytepp>(rows));
  }

 private:
  static std::string Framed(const std::string &name, const std::string &content) {
    std::string part(4, '\0');
    for (size_t i = 0; i < 4; ++i) part[i] = static_cast<char>(content.size() >> (24 - 8 * i));
    return part + name + content + std::string(4, '\0');
  }

  [[noreturn]] static void OnError(png_structp png, png_const_charp message) {
    Rows *const rows = static_cast<Rows *>(png_get_error_ptr(png));
    const bool is_short = std::strcmp(message, "Not enough image data") == 0;
    const bool is_filter = std::strcmp(message, "bad adaptive filter value") == 0;
    rows->problem_ = is_short    ? kTooFewPixels
                     : is_filter ? "unrecognized data stream contents when reading image file"
                                 : kBroken;
    png_longjmp(png, 1);
  }

  // Gives the start, then each part of the pixels with its frame, then the end.
  static void OnRead(png_structp png, png_bytep to, size_t size) {
    Rows *const rows = static_cast<Rows *>(png_get_io_ptr(png));
    while (size > 0) {
      if (rows->left_.size == 0 && !rows->Next()) png_error(png, "Not enough image data");
      const size_t count = std::min(size, rows->left_.size);
      std::memcpy(to, rows->left_.data, count);
      rows->left_ = {rows->left_.data + count, rows->left_.size - count};
      to += count;
      size -= count;
    }
  }

  // Goes on to what follows; tells whether there is anything.
  bool Next() {
    const size_t part = next_++;
    if (part == 0) {
      left_ = AsBytes(start_);
    } else if (part <= pixels_.size()) {  // content with its frame, as it lies in the file
      const Bytes &content = pixels_[part - 1];
      left_ = {content.data - 8, content.size + kFrameSize};
    } else if (part == pixels_.size() + 1) {
      left_ = AsBytes(end_);
    } else {
      return false;
    }
    return true;
  }

  const std::vector<Bytes> &pixels_;
  std::string start_, end_;
  size_t next_ = 0;
  Bytes left_;
  const char *problem_ = kBroken;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

unsigned Channels(uint8_t colour_type) {
  return colour_type == kRgb ? 3 : colour_type == kGreyAlpha ? 2 : colour_type == kRgba ? 4 : 1;
}

bool IsKind(unsigned bits, uint8_t colour_type) {
  switch (colour_type) {
    case kGrey:
      return bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16;
    case kPalette:
      return bits == 1 || bits == 2 || bits == 4 || bits == 8;
    case kRgb:
    case kGreyAlpha:
    case kRgba:
      return bits == 8 || bits == 16;
    default:
      return false;
  }
}

// Rows of numbers of colours become RGB, or RGBA where some are transparent.
void TakePalette(const Contents &contents, unsigned bits, const uint8_t *packed, size_t row_bytes, size_t width,
                 size_t height, Pixels *pixels) {
  Palette palette;
  if (contents.palette.size / 3 > 256) Refuse("invalid palette size");
  for (size_t i = 0; i < contents.palette.size / 3; ++i) {
    const uint8_t *const colour = contents.palette.data + 3 * i;
    palette.Set(i, colour[0], colour[1], colour[2]);
  }
  std::vector<uint8_t> alpha(256, 255);
  if (contents.transparency.size > 256) Refuse("index outside palette");
  std::copy_n(contents.transparency.data, contents.transparency.size, alpha.begin());
  pixels->Allocate(contents.has_transparency ? Pixels::Kind::kRgba : Pixels::Kind::kRgb, width, height);
  uint8_t *to = pixels->bytes.data();
  for (size_t y = 0; y < height; ++y) {
    for (size_t x = 0; x < width; ++x) {
      const unsigned number = PackedBits(packed + y * row_bytes, x, bits);
      to = std::copy_n(palette[number], 3, to);
      if (contents.has_transparency) *to++ = alpha[number];
    }
  }
}

// Grey of up to 8 bits becomes grey, or RGBA where one level is transparent.
void TakeGrey(const Contents &contents, unsigned bits, const uint8_t *packed, size_t row_bytes, size_t width,
              size_t height, Pixels *pixels) {
  const unsigned largest = (1U << bits) - 1;
  const bool has_alpha = contents.has_transparency;
  const unsigned hidden = has_alpha ? BigEndian16(contents.transparency.data) & largest : 0;
  pixels->Allocate(has_alpha ? Pixels::Kind::kRgba : Pixels::Kind::kGrey, width, height);
  uint8_t *to = pixels->bytes.data();
  for (size_t y = 0; y < height; ++y) {
    for (size_t x = 0; x < width; ++x) {
      const unsigned level = PackedBits(packed + y * row_bytes, x, bits);
      const auto scaled = static_cast<uint8_t>(level * 255 / largest);
      if (!has_alpha) {
        *to++ = scaled;
        continue;
      }
      to = std::fill_n(to, 3, scaled);
      *to++ = level == hidden ? 0 : 255;
    }
  }
}

// Colours of 8 or 16 bits, of which the upper 8 count, and grey with alpha.
void TakeColours(const Contents &contents, unsigned bits, uint8_t colour_type, const uint8_t *samples, size_t width,
                 size_t height, Pixels *pixels) {
  const size_t step = bits / 8, channels = Channels(colour_type), count = width * height;
  const bool is_hidden_given = colour_type == kRgb && contents.has_transparency;
  const bool has_alpha = colour_type != kRgb || is_hidden_given;
  pixels->Allocate(has_alpha ? Pixels::Kind::kRgba : Pixels::Kind::kRgb, width, height);
  uint8_t hidden[3] = {};
  if (is_hidden_given) {
    for (size_t i = 0; i < 3; ++i) hidden[i] = contents.transparency.data[2 * i + 1];
  }
  uint8_t *to = pixels->bytes.data();
  for (size_t i = 0; i < count; ++i, samples += channels * step) {
    for (size_t channel = 0; channel < 3; ++channel) to[channel] = samples[channels == 2 ? 0 : channel * step];
    if (has_alpha) {
      to[3] = is_hidden_given ? (std::equal(to, to + 3, hidden) ? 0 : 255) : samples[(channels - 1) * step];
    }
    to += has_alpha ? 4 : 3;
  }
}

}  // namespace

bool IsPng(const Bytes &file) {
  return file.size >= kSignatureSize && std::memcmp(file.data, kSignature, kSignatureSize) == 0;
}

Pixels DecodePng(const Bytes &file) {
  constexpr size_t kSizes = kSignatureSize + 8;  // width and height, before the whole file is looked at
  if (file.Has(kSizes, 8)) CheckPixels(BigEndian32(file.data + kSizes), BigEndian32(file.data + kSizes + 4));
  const Contents contents = ReadParts(file);
  const uint8_t *const header = contents.header.data;
  const size_t width = BigEndian32(header), height = BigEndian32(header + 4);
  const unsigned bits = header[8];
  const uint8_t colour_type = header[9];
  if (header[11] != 0) Refuse("unknown filter category");
  if (!IsKind(bits, colour_type) || width == 0 || height == 0) Refuse("not identified by this driver");
  const bool may_be_hidden = colour_type == kGrey || colour_type == kRgb;
  if (may_be_hidden && contents.has_transparency && contents.transparency.size < (colour_type == kRgb ? 6U : 2U)) {
    Refuse("Truncated tRNS chunk");
  }
  if (bits == 16 && colour_type == kRgb && contents.has_transparency) {
    Refuse("has a transparent colour of 16 bits; save it with an alpha channel, or without");
  }
  if (contents.pixels.empty()) Refuse("cannot load this image");
  Pixels pixels;
  const std::string profile_exif = ProfileExif(contents.profile_exif);
  SetOrientation(contents.exif.size > 0 ? contents.exif : AsBytes(profile_exif), AsBytes(contents.xmp),
                 contents.problems, &pixels);
  pixels.is_deep = bits == 16;

  const size_t row_bytes = (width * bits * Channels(colour_type) + 7) / 8;
  const bool is_as_in_file =
      bits == 8 && !contents.has_transparency && (colour_type == kGrey || colour_type == kRgb || colour_type == kRgba);
  const bool is_deep_grey = bits == 16 && colour_type == kGrey;
  std::vector<uint8_t> packed;
  if (is_as_in_file || is_deep_grey) {
    pixels.Allocate(is_deep_grey           ? Pixels::Kind::kGrey16
                    : colour_type == kGrey ? Pixels::Kind::kGrey
                    : colour_type == kRgb  ? Pixels::Kind::kRgb
                                           : Pixels::Kind::kRgba,
                    width, height);
  } else {
    packed.resize(row_bytes * height);
  }
  uint8_t *const samples = packed.empty() ? pixels.bytes.data() : packed.data();
  std::vector<uint8_t *> rows;
  for (size_t y = 0; y < height; ++y) rows.push_back(samples + y * row_bytes);
  Rows(contents, colour_type).Read(row_bytes, rows.data());

  if (is_deep_grey) {
    for (size_t i = 0; i < pixels.bytes.size(); i += 2) {
      const auto level = static_cast<uint16_t>(BigEndian16(&pixels.bytes[i]));
      std::memcpy(&pixels.bytes[i], &level, sizeof(level));
    }
    if (contents.has_transparency) pixels.transparent = static_cast<uint16_t>(BigEndian16(contents.transparency.data));
  } else if (colour_type == kPalette) {
    TakePalette(contents, bits, samples, row_bytes, width, height, &pixels);
  } else if (!is_as_in_file && colour_type == kGrey) {
    TakeGrey(contents, bits, samples, row_bytes, width, height, &pixels);
  } else if (!is_as_in_file) {
    TakeColours(contents, bits, colour_type, samples, width, height, &pixels);
  }
  return pixels;
}

}  // namespace stpm
