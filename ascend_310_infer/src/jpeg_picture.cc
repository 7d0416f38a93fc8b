#include "inc/jpeg_picture.h"

#include <cstdio>
// libjpeg's header needs what stands above it
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "inc/orientation.h"

namespace stpm {
namespace {

constexpr uint8_t kStartOfScan = 0xda, kEndOfImage = 0xd9, kComment = 0xfe, kApplication0 = 0xe0, kApplication1 = 0xe1,
                  kApplication14 = 0xee, kQuantisation = 0xdb;
constexpr char kTruncated[] = "image file is truncated";
constexpr char kIncomplete[] = "some of its progressive scans are missing; save it again";

// What pixels depend on, and what is told of them.
struct Contents {
  std::vector<uint8_t> pixels;  // a JPEG of the parts that matter
  std::string exif;
  Bytes xmp;
  size_t width = 0, height = 0;
  unsigned channels = 0;
  bool tells_ink = false;  // Adobe's word on which value is no ink
};

struct Part {
  uint8_t marker;
  Bytes content;
};

bool IsFrame(uint8_t marker) {
  return (0xc0 <= marker && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) || marker == 0xde;
}

bool StartsWith(const Bytes &content, const char *start, size_t size) {
  return content.Has(0, size) && std::memcmp(content.data, start, size) == 0;
}

void TakeFrame(const Bytes &content, Contents *contents) {
  if (content.size < 6) Refuse("index out of range");
  contents->height = BigEndian16(content.data + 1);
  contents->width = BigEndian16(content.data + 3);
  const unsigned bits = content.data[0];
  if (bits != 8) Refuse("cannot handle " + std::to_string(bits) + "-bit layers");
  contents->channels = content.data[5];
  if (contents->channels != 1 && contents->channels != 3 && contents->channels != 4) {
    Refuse("cannot handle " + std::to_string(contents->channels) + "-layer images");
  }
  if (content.size % 3 != 0) Refuse("index out of range");
}

void CheckQuantisation(const Bytes &content) {
  for (size_t at = 0; at < content.size;) {
    const size_t size = 1 + (content.data[at] < 16 ? 64 : 128);
    if (content.size - at < size) Refuse("bad quantization table marker");
    at += size;
  }
}

// Finds what matters. Left out are previews, further pictures, profiles and remarks.
Contents ReadParts(const Bytes &file) {
  Contents contents;
  contents.pixels.assign(file.data, file.data + 2);
  std::vector<Part> parts;
  size_t at = 2;
  for (;;) {
    while (at < file.size && file.data[at] != 0xff) ++at;
    while (at < file.size && file.data[at] == 0xff) ++at;
    if (at >= file.size || file.data[at] == kEndOfImage) Refuse("truncated: its pixels are missing");
    const uint8_t marker = file.data[at];
    const size_t start = at - 1;
    ++at;
    if (marker <= 1 || (0xd0 <= marker && marker <= 0xd8)) continue;
    if (marker == kStartOfScan) {
      for (const Part &part : parts) {
        if (part.marker < 0xc0) Refuse("no marker found");
        if (IsFrame(part.marker)) TakeFrame(part.content, &contents);
        if (part.marker == kQuantisation) CheckQuantisation(part.content);
      }
      if (!file.Has(at, 2) || !file.Has(at, BigEndian16(file.data + at))) Refuse("Truncated File Read");
      contents.pixels.insert(contents.pixels.end(), file.data + start, file.data + file.size);
      return contents;
    }
    const size_t length = file.Has(at, 2) ? BigEndian16(file.data + at) : 0;
    const size_t begin = std::min(at + 2, file.size);
    Bytes content = {file.data + begin, std::min(length < 2 ? 0 : length - 2, file.size - begin)};
    at = begin + content.size;
    const bool is_around = (0xe0 <= marker && marker <= 0xef) || marker == kComment;
    if (marker == kApplication1 && StartsWith(content, "Exif\0", 6)) {
      const size_t known = contents.exif.empty() ? 0 : 6;
      contents.exif.append(reinterpret_cast<const char *>(content.data) + known, content.size - known);
    } else if (marker == kApplication1 && StartsWith(content, "http://ns.adobe.com/xap/1.0/", 29)) {
      contents.xmp = content;
    }
    const bool is_adobe = marker == kApplication14 && StartsWith(content, "Adobe", 5) && length >= 14;
    contents.tells_ink = contents.tells_ink || is_adobe;
    const bool tells_colours = is_adobe || (marker == kApplication0 && StartsWith(content, "JFIF", 5) && length >= 16);
    if (is_around && !tells_colours) continue;
    parts.push_back({marker, content});
    contents.pixels.insert(contents.pixels.end(), file.data + start, file.data + at);
  }
}

// libjpeg, which reads the parts that matter from memory.
class Lines {
 public:
  explicit Lines(const Contents &contents) : contents_(contents) {
    state_.err = jpeg_std_error(&errors_);
    state_.client_data = this;
    errors_.error_exit = [](j_common_ptr state) {
      Lines *const lines = static_cast<Lines *>(state->client_data);
      if (state->err->msg_code == JERR_OUT_OF_MEMORY) lines->problem_ = "out of memory when reading image file";
      std::longjmp(lines->jump_, 1);
    };
    errors_.output_message = [](j_common_ptr) {};
    source_.init_source = [](j_decompress_ptr) {};
    source_.term_source = [](j_decompress_ptr) {};
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };  // all is there: the end
    source_.skip_input_data = [](j_decompress_ptr state, long count) {
      jpeg_source_mgr *const source = state->src;
      const size_t skipped = std::min(static_cast<size_t>(std::max(count, 0L)), source->bytes_in_buffer);
      source->next_input_byte += skipped;
      source->bytes_in_buffer -= skipped;
    };
  }
  ~Lines() { jpeg_destroy_decompress(&state_); }
  Lines(const Lines &) = delete;
  Lines &operator=(const Lines &) = delete;

  // Reads all lines, of width x channels bytes each. Throws Refusal.
  void Read(size_t width, size_t height, unsigned channels, uint8_t *to) {
    if (setjmp(jump_) != 0) Refuse(problem_);  // no destructor is passed over: what follows is C
    jpeg_create_decompress(&state_);
    state_.src = &source_;
    source_.next_input_byte = contents_.pixels.data();
    source_.bytes_in_buffer = contents_.pixels.size();
    if (jpeg_read_header(&state_, TRUE) != JPEG_HEADER_OK) Stop(kTruncated);
    state_.out_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    if (!jpeg_start_decompress(&state_)) Stop(kTruncated);
    if (AreScansMissing()) Stop(kIncomplete);
    const auto components = static_cast<unsigned>(state_.output_components);
    if (state_.output_width != width || state_.output_height < height || components != channels) Stop(kBroken);
    for (size_t y = 0; y < height; ++y) {
      JSAMPROW line = to + y * width * channels;
      if (jpeg_read_scanlines(&state_, &line, 1) != 1) Stop(kTruncated);
    }
    jpeg_finish_decompress(
        &state_);  // which finds what is wrong behind the pixels; an end that is missing does no harm
  }

 private:
  // Tells whether coefficients are not known to the last bit: releases of libjpeg-turbo guess pixels differently then.
  bool AreScansMissing() const {
    constexpr int kGuessed = 10;  // the lowest coefficients, which decide whether it guesses
    if (state_.coef_bits == nullptr) return false;
    for (int channel = 0; channel < state_.num_components; ++channel) {
      const int *const bits = state_.coef_bits[channel];
      if (std::any_of(bits, bits + kGuessed, [](int one) { return one != 0; })) return true;
    }
    return false;
  }

  [[noreturn]] void Stop(const char *problem) {
    problem_ = problem;
    std::longjmp(jump_, 1);
  }

  const Contents &contents_;
  const char *problem_ = kBroken;
  std::jmp_buf jump_;
  jpeg_decompress_struct state_ = {};
  jpeg_error_mgr errors_ = {};
  jpeg_source_mgr source_ = {};
};

}  // namespace

bool IsJpeg(const Bytes &file) { return file.size >= 3 && std::memcmp(file.data, "\xff\xd8\xff", 3) == 0; }

Pixels DecodeJpeg(const Bytes &file) {
  const Contents contents = ReadParts(file);
  if (contents.channels == 0 || contents.width == 0 || contents.height == 0) Refuse("not identified by this driver");
  if (contents.channels == 4 && !contents.tells_ink) {
    Refuse("its pixels are CMYK without a word (Adobe's) on which value is no ink; save it as RGB");
  }
  CheckPixels(contents.width, contents.height);
  Pixels pixels;
  SetOrientation(AsBytes(contents.exif), contents.xmp, {}, &pixels);
  using Kind = Pixels::Kind;
  const Kind kind = contents.channels == 1 ? Kind::kGrey : contents.channels == 3 ? Kind::kRgb : Kind::kRgba;
  pixels.Allocate(kind, contents.width, contents.height);
  Lines(contents).Read(contents.width, contents.height, contents.channels, pixels.bytes.data());
  if (contents.channels == 4) {  // Adobe's 255 is no ink
    uint8_t *to = pixels.bytes.data();
    for (size_t i = 0; i < pixels.bytes.size(); i += 4, to += 3) {
      uint8_t inks[4];
      for (size_t ink = 0; ink < 4; ++ink) inks[ink] = static_cast<uint8_t>(~pixels.bytes[i + ink]);
      CmykToRgb(inks, to);
    }
    pixels.kind = Kind::kRgb;
    pixels.bytes.resize(3 * contents.width * contents.height);
  }
  return pixels;
}

}  // namespace stpm
