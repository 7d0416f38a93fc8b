#include "inc/tiff_picture.h"

#include <tiffio.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include "inc/orientation.h"
#include "inc/tiff_samples.h"
#include "inc/tiff_tags.h"

namespace stpm {
namespace {

using Integers = std::vector<int64_t>;
using Form = TiffSamples::Form;

constexpr int64_t kLargestSide = 0x7fffffff;

[[noreturn]] void RefuseData() { Refuse("decoder error -2"); }

// Finds the one page that is neither a preview nor a reduced copy of another.
TiffTags FindPage(const Bytes &file, const TiffHeader &header) {
  std::vector<TiffTags> pages, reduced;
  std::set<uint64_t> places;
  for (uint64_t place = header.first; place != 0 && place < file.size && places.insert(place).second;) {
    TiffTags tags(file, header, place);
    place = tags.next();
    const int64_t kind = tags.AnyInteger(kSubfileTag).value_or(0);
    if ((kind & 4) != 0) {
      Refuse("holds a transparency mask as a page of its own; save it with an alpha channel");
    }
    if (!tags.Has(kWidthTag) || !tags.Has(kHeightTag)) continue;  // it is no picture
    const bool is_reduced = (kind & 1) != 0 || tags.AnyInteger(kOldSubfileTag) == 2;
    (is_reduced ? reduced : pages).push_back(std::move(tags));
  }
  if (pages.empty()) pages.swap(reduced);
  if (pages.size() != 1) {
    Refuse("holds " + std::to_string(pages.size()) + " pages or frames; expected one, or each in a file of its own");
  }
  return pages.front();
}

// --- uncompressed pixels

// A strip, or a tile, of one band where bands stand apart.
struct Block {
  int64_t left, top, right, bottom;  // of the picture
  int64_t offset;                    // in the file
  int64_t stride;                    // bytes from row to row; 0: as long as they are
  size_t band;

  bool IsInPlaceOf(const Block &other) const {
    return left == other.left && top == other.top && right == other.right && bottom == other.bottom &&
           stride == other.stride && band == other.band;
  }
};

// Lists the blocks by their place in the file. If there are too few, pixels stay black; further ones begin again.
std::vector<Block> FindBlocks(const TiffTags &tags, const TiffSamples &samples, int64_t width, int64_t height) {
  const bool has_strips = tags.Has(kStripOffsetsTag);
  if (!has_strips && !tags.Has(kTileOffsetsTag)) RefuseTiffKind(tags, "unknown data organization");
  Integers offsets = *tags.Integers(has_strips ? kStripOffsetsTag : kTileOffsetsTag);
  const int64_t across = has_strips ? width : tags.Integer(kTileWidthTag, 0);
  const int64_t down = has_strips ? tags.Integer(kRowsPerStripTag, height) : tags.Integer(kTileHeightTag, 0);
  if (across <= 0 || down <= 0) Refuse("Invalid tile dimensions");
  const bool is_planar = samples.is_planar;
  if (across == width && down == height && !is_planar) offsets.erase(offsets.begin(), offsets.end() - 1);
  std::vector<Block> blocks;
  int64_t x = 0, y = 0;
  size_t band = 0;
  for (const int64_t offset : offsets) {
    if (is_planar && band >= samples.count) RefuseTiffKind(tags, "string index out of range");
    Block block = {x, y, width, height, offset, 0, band};
    if (across < width - x) block.right = x + across;
    if (down < height - y) block.bottom = y + down;
    if (across > width - x) block.stride = static_cast<int64_t>(samples.row_bytes(static_cast<size_t>(across)));
    blocks.push_back(block);
    x = block.right;
    if (x < width) continue;
    x = 0;
    y = block.bottom;
    if (y < height) continue;
    y = 0;
    band += is_planar ? 1 : 0;
  }
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block &one, const Block &other) { return one.offset < other.offset; });
  return blocks;
}

void ReadUncompressed(const Bytes &file, const TiffTags &tags, const TiffSamples &samples, Pixels *pixels) {
  const bool are_bands_known =
      !samples.is_planar || (samples.count == samples.bands() && samples.alpha != TiffSamples::Alpha::kAssociated &&
                             samples.form != Form::kGreyAlpha && samples.form != Form::kYcbcr);
  // Pillow has no name for some kinds of bits from the other end
  const bool has_name = samples.form == Form::kPalette ? samples.bits == 8 : !samples.is_inverted || samples.bits != 8;
  if (!are_bands_known || (samples.is_bit_reversed && !has_name)) Refuse("unknown raw mode for given image mode");
  const auto width = static_cast<int64_t>(pixels->width), height = static_cast<int64_t>(pixels->height);
  const std::vector<Block> blocks = FindBlocks(tags, samples, width, height);
  const size_t pixel_size = samples.pixel_size();
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Block &block = blocks[i];
    if (i + 1 < blocks.size() && block.IsInPlaceOf(blocks[i + 1])) continue;
    const auto block_width = static_cast<size_t>(block.right - block.left);
    const auto rows = static_cast<uint64_t>(block.bottom - block.top);
    const size_t row_bytes = samples.row_bytes(block_width);
    const size_t stride = block.stride > 0 ? static_cast<size_t>(block.stride) : row_bytes;
    if (stride < row_bytes) Refuse("codec configuration error when reading image file");
    if (block.offset < 0 || stride > file.size || rows > file.size ||
        !file.Has(static_cast<uint64_t>(block.offset), stride * (rows - 1) + row_bytes)) {
      Refuse("image file is truncated");
    }
    const uint8_t *row = file.data + block.offset;
    for (int64_t y = block.top; y < block.bottom; ++y, row += stride) {
      samples.Unpack(row, block_width, block.band,
                     &pixels->bytes[static_cast<size_t>(y * width + block.left) * pixel_size]);
    }
  }
}

// --- libtiff, for compressed pixels

// A file in memory, as libtiff reads it.
struct MemoryFile {
  Bytes bytes;
  uint64_t position = 0;
};

MemoryFile *FileOf(thandle_t handle) { return static_cast<MemoryFile *>(handle); }

tmsize_t ReadMemory(thandle_t handle, void *to, tmsize_t size) {
  MemoryFile *const file = FileOf(handle);
  const size_t left = file->bytes.size - static_cast<size_t>(std::min<uint64_t>(file->position, file->bytes.size));
  const size_t count = std::min(left, static_cast<size_t>(std::max<tmsize_t>(size, 0)));
  if (count > 0) std::memcpy(to, file->bytes.data + file->position, count);
  file->position += count;
  return static_cast<tmsize_t>(count);
}

toff_t SeekMemory(thandle_t handle, toff_t offset, int whence) {
  MemoryFile *const file = FileOf(handle);
  file->position = offset + (whence == SEEK_CUR ? file->position : whence == SEEK_END ? file->bytes.size : 0);
  return file->position;
}

int MapMemory(thandle_t handle, void **base, toff_t *size) {
  *base = const_cast<uint8_t *>(FileOf(handle)->bytes.data);
  *size = FileOf(handle)->bytes.size;
  return 1;
}

tmsize_t WriteMemory(thandle_t, void *, tmsize_t) { return 0; }
int CloseMemory(thandle_t) { return 0; }
toff_t SizeOfMemory(thandle_t handle) { return FileOf(handle)->bytes.size; }
void UnmapMemory(thandle_t, void *, toff_t) {}

using Tiff = std::unique_ptr<TIFF, void (*)(TIFF *)>;

// Opens a file in memory, silently: what is wrong is told by what its functions return.
Tiff OpenTiff(MemoryFile *file) {
  constexpr char kMode[] = "r";
#if TIFFLIB_VERSION >= 20221213
  const std::unique_ptr<TIFFOpenOptions, void (*)(TIFFOpenOptions *)> options(TIFFOpenOptionsAlloc(),
                                                                              TIFFOpenOptionsFree);
  const auto ignore = [](TIFF *, void *, const char *, const char *, va_list) { return 1; };
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), ignore, nullptr);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), ignore, nullptr);
  const uint64_t most = std::min<uint64_t>(16 * PixelLimit() + (1U << 24), PTRDIFF_MAX);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), static_cast<tmsize_t>(most));
  TIFF *const opened = TIFFClientOpenExt("", kMode, file, ReadMemory, WriteMemory, SeekMemory, CloseMemory,
                                         SizeOfMemory, MapMemory, UnmapMemory, options.get());
#else
  static const bool is_silent = [] {  // it knows no other way
    TIFFSetErrorHandler(nullptr);
    TIFFSetWarningHandler(nullptr);
    return true;
  }();
  (void)is_silent;
  TIFF *const opened = TIFFClientOpen("", kMode, file, ReadMemory, WriteMemory, SeekMemory, CloseMemory, SizeOfMemory,
                                      MapMemory, UnmapMemory);
#endif
  if (opened == nullptr) RefuseData();
  return {opened, TIFFClose};
}

// Reads strips or tiles. Where both disagree with the tags on how long they are, it refuses.
void ReadBlocks(TIFF *tiff, const TiffSamples &samples, Pixels *pixels) {
  const bool is_tiled = TIFFIsTiled(tiff) != 0;
  const size_t width = pixels->width, height = pixels->height, pixel_size = samples.pixel_size();
  const size_t bands = samples.is_planar ? samples.bands() : 1;
  if (samples.is_planar && samples.form == Form::kGreyAlpha) {
    Refuse("its grey and alpha are stored one after the other, in a way that is not read; save them side by side");
  }
  if (samples.is_planar && samples.count != bands) RefuseData();
  uint32_t across = static_cast<uint32_t>(width), down = static_cast<uint32_t>(height);
  if (is_tiled) {
    TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &across);
    TIFFGetField(tiff, TIFFTAG_TILELENGTH, &down);
    if (across == 0 || down == 0) RefuseData();
    if (down > PixelLimit() / across) RefuseData();
  } else {
    uint32_t rows = 0;
    if (TIFFGetField(tiff, TIFFTAG_ROWSPERSTRIP, &rows) == 1 && rows != 0xffffffffU) down = rows;
    if (down == 0 || down > kLargestSide) RefuseData();
  }
  const tmsize_t block_size = is_tiled ? TIFFTileSize(tiff) : TIFFStripSize(tiff);
  const tmsize_t stride = is_tiled ? TIFFTileRowSize(tiff) : TIFFScanlineSize(tiff);
  const auto row_bytes = static_cast<tmsize_t>(samples.row_bytes(across));
  if (block_size <= 0 || stride < row_bytes || stride > block_size) RefuseData();
  const bool is_long = block_size / row_bytes > static_cast<tmsize_t>(down) ||
                       (block_size / row_bytes == static_cast<tmsize_t>(down) && block_size % row_bytes > 0);
  if (is_long || (is_tiled && block_size != row_bytes * static_cast<tmsize_t>(down))) RefuseData();
  std::vector<uint8_t> block(static_cast<size_t>(block_size));
  for (size_t top = 0; top < height; top += down) {
    const size_t rows = std::min<size_t>(down, height - top);
    for (size_t band = 0; band < bands; ++band) {
      for (size_t left = 0; left < width; left += across) {
        const auto x = static_cast<uint32_t>(left), y = static_cast<uint32_t>(top);
        const auto sample = static_cast<uint16_t>(band);
        const tmsize_t found =
            is_tiled ? TIFFReadTile(tiff, block.data(), x, y, 0, sample)
                     : TIFFReadEncodedStrip(tiff, TIFFComputeStrip(tiff, y, sample), block.data(), block_size);
        if (found == -1) RefuseData();
        const size_t columns = std::min<size_t>(across, width - left);
        for (size_t row = 0; row < rows && static_cast<tmsize_t>(row + 1) * stride <= block_size; ++row) {
          samples.Unpack(&block[row * static_cast<size_t>(stride)], columns, band,
                         &pixels->bytes[((top + row) * width + left) * pixel_size]);
        }
      }
    }
  }
}

// Reads YCbCr, subsampled or not, as libtiff makes it RGB.
void ReadAsRgb(TIFF *tiff, Pixels *pixels) {
  uint32_t rows = 0;
  const int tag = TIFFIsTiled(tiff) != 0 ? TIFFTAG_TILELENGTH : TIFFTAG_ROWSPERSTRIP;
  const bool is_told = TIFFGetFieldDefaulted(tiff, static_cast<uint32_t>(tag), &rows) == 1;
  const size_t height = pixels->height, width = pixels->width;
  uint16_t across = 1, down = 1;  // pixels that have a colour in common
  TIFFGetFieldDefaulted(tiff, TIFFTAG_YCBCRSUBSAMPLING, &across, &down);
  if (across > width || down > height) RefuseData();         // as later releases of libtiff do
  if (across == 4 && down == 4 && TIFFIsTiled(tiff) != 0) {  // libtiff 4.5 mixes up the edges
    Refuse("its colours (YCbCr) are of a quarter of the resolution, in tiles; save it as RGB");
  }
  if (!is_told || rows > height) rows = static_cast<uint32_t>(height);
  char problem[1024] = "";
  constexpr int kStopOnError = 1;  // else a strip that cannot be decoded stays black
  TIFFRGBAImage image = {};
  if (rows == 0 || TIFFRGBAImageOK(tiff, problem) == 0 ||
      TIFFRGBAImageBegin(&image, tiff, kStopOnError, problem) == 0) {
    RefuseData();
  }
  const std::unique_ptr<TIFFRGBAImage, void (*)(TIFFRGBAImage *)> end(&image, TIFFRGBAImageEnd);
  if (image.width != width || image.height != height) RefuseData();
  image.orientation = image.req_orientation = ORIENTATION_TOPLEFT;
  image.col_offset = 0;
  std::vector<uint32_t> raster(rows * width);
  uint8_t *to = pixels->bytes.data();
  for (size_t top = 0; top < height; top += rows) {
    image.row_offset = static_cast<int>(top);
    const size_t here = std::min<size_t>(rows, height - top);
    if (TIFFRGBAImageGet(&image, raster.data(), static_cast<uint32_t>(width), static_cast<uint32_t>(here)) == 0) {
      RefuseData();
    }
    for (size_t i = 0; i < here * width; ++i) {
      *to++ = static_cast<uint8_t>(TIFFGetR(raster[i]));
      *to++ = static_cast<uint8_t>(TIFFGetG(raster[i]));
      *to++ = static_cast<uint8_t>(TIFFGetB(raster[i]));
    }
  }
}

// Where alpha stands in a part of its own, libtiff's word on it counts, as in Pillow; without a tag that is another
// one.
void FindAlpha(TIFF *tiff, TiffSamples *samples) {
  if (!samples->is_planar || samples->form != Form::kColours || samples->alpha == TiffSamples::Alpha::kNone) return;
  uint16_t count = 0;
  uint16_t *kinds = nullptr;
  TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &count, &kinds);
  const bool is_straight = count == 0 || kinds[0] == EXTRASAMPLE_UNASSALPHA;
  samples->alpha = is_straight ? TiffSamples::Alpha::kStraight : TiffSamples::Alpha::kAssociated;
}

// Reads pixels, which are what they mean already if they are YCbCr.
void ReadCompressed(const Bytes &file, uint64_t directory, TiffSamples samples, Pixels *pixels) {
  samples.is_bit_reversed = false;  // libtiff turns bits and bytes
  const uint16_t one = 1;
  uint8_t first = 0;
  std::memcpy(&first, &one, 1);
  samples.is_big_endian = first == 0;
  MemoryFile memory = {file};
  const Tiff opened = OpenTiff(&memory);
  TIFF *const tiff = opened.get();
  uint32_t width = 0, height = 0;
  uint16_t photometric = 0, compression = 0, planar = 0;
  if (TIFFSetSubDirectory(tiff, directory) == 0) RefuseData();
  TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width);
  TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height);
  if (width != pixels->width || height != pixels->height) RefuseData();
  TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &photometric);
  TIFFGetField(tiff, TIFFTAG_COMPRESSION, &compression);
  TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &planar);
#ifdef TIFFTAG_DEFLATE_SUBCODEC
  if (compression == COMPRESSION_ADOBE_DEFLATE || compression == COMPRESSION_DEFLATE) {
    // libdeflate, which libtiff may prefer, leaves out pixels of a strip that holds more than it should, silently
    TIFFSetField(tiff, TIFFTAG_DEFLATE_SUBCODEC, DEFLATE_SUBCODEC_ZLIB);
  }
#endif
  if (photometric != PHOTOMETRIC_YCBCR) {
    if (samples.form == Form::kYcbcr) RefuseData();
    FindAlpha(tiff, &samples);
    ReadBlocks(tiff, samples, pixels);
    samples.Finish(pixels->bytes.data(), pixels->width * pixels->height);
    return;
  }
  if (samples.form != Form::kYcbcr) RefuseData();
  if (compression == COMPRESSION_JPEG && planar == PLANARCONFIG_CONTIG) {
    TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    ReadBlocks(tiff, samples, pixels);
  } else {
    ReadAsRgb(tiff, pixels);
  }
}

}  // namespace

bool IsTiff(const Bytes &file) { return ReadTiffHeader(file).has_value(); }

Pixels DecodeTiff(const Bytes &file) {
  const std::optional<TiffHeader> header = ReadTiffHeader(file);
  if (!header) Refuse("it is neither PNG nor JPEG, BMP or TIFF");
  const TiffTags tags = FindPage(file, *header);
  CheckTiff(tags);
  const TiffSamples samples = FindTiffSamples(tags, header->is_big_endian);
  // Pillow opens the first page, whatever it is, before the one that is read
  if (tags.place() != header->first) FindTiffSamples(TiffTags(file, *header, header->first), header->is_big_endian);
  const int64_t width = tags.Integer(kWidthTag, 0), height = tags.Integer(kHeightTag, 0);
  if (width <= 0 || height <= 0) Refuse("not identified by this driver");
  CheckPixels(static_cast<uint64_t>(width), static_cast<uint64_t>(height));
  if (width > kLargestSide || height > kLargestSide) RefuseData();

  Pixels pixels;
  if (tags.Has(kOrientationTag)) {
    std::vector<std::string> problems;
    const std::optional<int64_t> orientation = tags.AnyInteger(kOrientationTag);
    if (!orientation) problems.push_back("an orientation that is no whole number, which is none of 1 to 8");
    SetOrientation(orientation, problems, &pixels);
  } else {
    SetOrientation(Bytes(), tags.Text(kXmpTag).value_or(Bytes()), {}, &pixels);
  }
  pixels.is_deep = samples.bits == 16;
  pixels.is_inverted = pixels.is_deep && samples.is_inverted;
  pixels.width = static_cast<size_t>(width);
  pixels.height = static_cast<size_t>(height);
  const size_t count = pixels.width * pixels.height;
  pixels.bytes.assign(count * samples.pixel_size(), 0);
  if (tags.Integer(kCompressionTag, kUncompressed) == kUncompressed) {
    ReadUncompressed(file, tags, samples, &pixels);
    samples.Finish(pixels.bytes.data(), count);
  } else {
    // without, releases of libtiff guess, or do not
    if (!tags.Has(kStripBytesTag) && !tags.Has(kTileBytesTag)) RefuseData();
    ReadCompressed(file, tags.place(), samples, &pixels);
  }
  pixels.kind = samples.kind();
  pixels.bytes.resize(count * pixels.pixel_size());
  return pixels;
}

}  // namespace stpm
