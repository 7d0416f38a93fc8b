#include "inc/picture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "inc/bmp_picture.h"
#include "inc/jpeg_picture.h"
#include "inc/pixels.h"
#include "inc/png_picture.h"
#include "inc/tiff_picture.h"
#include "inc/utils.h"

namespace stpm {
namespace {

constexpr unsigned kDark = 16;  // what the 12 bits of many a camera reach of 255, where 16 are expected
constexpr char kBits[] = "bits";

// Remarks on a 16-bit picture that uses fewer. brightest: as it is read, of 8 bits. deepest: of grey, its brightest
// value of 16 bits; of 13 bits and more that tells only where it is the largest that they have, as in highlights.
void RemarkOnBits(unsigned brightest, unsigned deepest, std::vector<Remark> *remarks) {
  if (brightest <= kDark) {
    remarks->push_back(
        {kBits,
         "uses the lowest 12 of its 16 bits at most, is read as nearly black (brightest: " + std::to_string(brightest) +
             " of 255); if the camera gives no more, scale all pictures alike (12 bits: times 16)"});
    return;
  }
  for (unsigned bits = 13; bits <= 15; ++bits) {
    if (deepest != (1U << bits) - 1) continue;
    const std::string name = std::to_string(bits) + " bits";
    remarks->push_back({kBits, "has the brightest value " + std::to_string(deepest) + ", the largest of " + name +
                                   ", which of 16 is read as " + std::to_string(brightest) +
                                   " of 255; if the camera gives no more, scale all pictures alike (" + name +
                                   ": times " + std::to_string(1U << (16 - bits)) + ")"});
  }
}

// Scales 16 bits to 8, to the nearest. Returns the brightest value of 16 bits.
unsigned ScaleDepth(Pixels *pixels) {
  unsigned deepest = 0;
  for (size_t i = 0; i < pixels->bytes.size() / 2; ++i) {
    uint16_t level;
    std::memcpy(&level, &pixels->bytes[2 * i], sizeof(level));
    deepest = std::max<unsigned>(deepest, level);
    const unsigned scaled = (2U * (pixels->is_inverted ? 65535U - level : level) + 257) / 514;  // round(x / 257)
    pixels->bytes[i] = static_cast<uint8_t>(pixels->transparent == level ? 0 : scaled);
  }
  pixels->bytes.resize(pixels->bytes.size() / 2);
  pixels->kind = Pixels::Kind::kGrey;
  return deepest;
}

// Lays pixels on black, so that nothing hidden comes through.
void LayOnBlack(Pixels *pixels) {
  const size_t count = pixels->width * pixels->height;
  unsigned highest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t *const from = &pixels->bytes[4 * i];
    const unsigned alpha = from[3];
    highest = std::max(highest, alpha);
    for (size_t channel = 0; channel < 3; ++channel) {
      pixels->bytes[3 * i + channel] = MultiplyBytes(from[channel], alpha);
    }
  }
  if (highest == 0) Refuse("all of its pixels are transparent; save it without alpha if they are not meant to be");
  pixels->bytes.resize(3 * count);
  pixels->kind = Pixels::Kind::kRgb;
}

// Turns pixels of 1 or 3 bytes upright.
Image Upright(Pixels *pixels) {
  const size_t width = pixels->width, height = pixels->height, channels = pixels->pixel_size();
  const int orientation = pixels->orientation;
  if (orientation == 1) return {width, height, channels, std::move(pixels->bytes)};
  const bool is_lying = orientation >= 5;
  Image image = {is_lying ? height : width, is_lying ? width : height, channels, {}};
  image.pixels.resize(pixels->bytes.size());
  // where the picture's first pixel comes from, and how far it is to the next one on the right, and below, in the file
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const auto pixel = static_cast<std::ptrdiff_t>(channels);
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(width) * pixel;
  const std::ptrdiff_t along = from_right ? -pixel : pixel, down = from_below ? -row : row;
  const uint8_t *const start = pixels->bytes.data() + (from_right ? row - pixel : 0) +
                               (from_below ? row * (static_cast<std::ptrdiff_t>(height) - 1) : 0);
  uint8_t *to = image.pixels.data();
  for (size_t y = 0; y < image.height; ++y) {
    const uint8_t *from = start + static_cast<std::ptrdiff_t>(y) * (is_lying ? along : down);
    for (size_t x = 0; x < image.width; ++x, from += is_lying ? down : along) {
      for (size_t channel = 0; channel < channels; ++channel) *to++ = from[channel];
    }
  }
  return image;
}

Pixels DecodeAny(const Bytes &file) {
  if (IsPng(file)) return DecodePng(file);
  if (IsJpeg(file)) return DecodeJpeg(file);
  if (IsBmp(file)) return DecodeBmp(file);
  if (IsTiff(file)) return DecodeTiff(file);
  Refuse("it is neither PNG nor JPEG, BMP or TIFF");
}

// Closes a file at the end.
class Closer {
 public:
  explicit Closer(int fd) : fd_(fd) {}
  ~Closer() { ::close(fd_); }
  Closer(const Closer &) = delete;
  Closer &operator=(const Closer &) = delete;

 private:
  int fd_;
};

[[noreturn]] void ThrowUnreadable(const std::string &path, int number) {
  throw Error(path + ": cannot be read: " + std::strerror(number));
}

std::vector<uint8_t> ReadFile(const std::string &path) {
  // to open or read what is no file can block for ever
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int number = errno;
    struct stat link = {};
    if (number == ENOENT && ::lstat(path.c_str(), &link) == 0) throw Error(path + ": is a link that leads nowhere");
    ThrowUnreadable(path, number);
  }
  const Closer closer(fd);
  struct stat status = {};
  if (::fstat(fd, &status) != 0) ThrowUnreadable(path, errno);
  if (S_ISDIR(status.st_mode)) ThrowUnreadable(path, EISDIR);
  if (!S_ISREG(status.st_mode)) {
    throw Error(path + ": cannot be read: Is a pipe, a socket or a device, not a file");
  }
  std::vector<uint8_t> content(static_cast<size_t>(status.st_size));
  size_t size = 0;
  while (size < content.size()) {
    const ssize_t count = ::read(fd, content.data() + size, content.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) ThrowUnreadable(path, errno);
    if (count == 0) break;
    size += static_cast<size_t>(count);
  }
  content.resize(size);
  return content;
}

template <typename Call>
Picture OrNoMemory(const std::string &name, Call call) {
  const std::string problem = ": not enough memory to decode it";
  try {
    return call();
  } catch (const std::bad_alloc &) {
    throw Error(name + problem);
  } catch (const std::length_error &) {  // more than could ever be
    throw Error(name + problem);
  }
}

}  // namespace

Picture DecodePicture(const std::string &name, const uint8_t *data, size_t size) {
  return OrNoMemory(name, [&] {
    try {
      Pixels pixels = DecodeAny({data, size});
      const bool was_inverted = pixels.is_inverted;
      unsigned deepest = 0;
      if (pixels.kind == Pixels::Kind::kGrey16) deepest = ScaleDepth(&pixels);
      if (pixels.kind == Pixels::Kind::kRgba) LayOnBlack(&pixels);
      if (pixels.is_deep) {
        const uint8_t brightest = *std::max_element(pixels.bytes.begin(), pixels.bytes.end());
        RemarkOnBits(brightest, was_inverted ? 0 : deepest, &pixels.remarks);
      }
      Picture picture;
      picture.image = Upright(&pixels);
      picture.remarks = std::move(pixels.remarks);
      return picture;
    } catch (const Refusal &refusal) {
      throw Error(name + ": " + refusal.what());
    }
  });
}

Picture ReadPicture(const std::string &path) {
  return OrNoMemory(path, [&] {
    const std::vector<uint8_t> content = ReadFile(path);
    return DecodePicture(path, content.data(), content.size());
  });
}

}  // namespace stpm
