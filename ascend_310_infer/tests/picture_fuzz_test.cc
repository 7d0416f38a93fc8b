// Damaged pictures, made by a seeded generator from those of a folder: each is read, or refused by name.
//   picture_fuzz_test FOLDER [SEED [COUNT [FIRST]]]    an input is a function of seed, number and the folder's files
#include <dirent.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "inc/network_input.h"
#include "inc/picture.h"
#include "inc/pixels.h"
#include "inc/png_picture.h"
#include "inc/resize.h"
#include "inc/utils.h"
#include "tests/check.h"
#include "tests/fuzz_harness.h"
#include "tests/random.h"

namespace stpm {
namespace {

constexpr char kMostPixels[] = "300000";
constexpr size_t kLargestSide = 24;  // of what pictures are resized to

Strings ReadFolder(const std::string &folder) {
  Strings names, contents;
  DIR *const directory = ::opendir(folder.c_str());
  if (directory == nullptr) throw Error(folder + ": cannot be listed");
  while (const dirent *entry = ::readdir(directory)) {
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  }
  ::closedir(directory);
  std::sort(names.begin(), names.end());
  for (const std::string &name : names) contents.push_back(Get(folder + "/" + name));
  if (contents.empty()) throw Error(folder + ": holds no files");
  return contents;
}

// Returns a place; headers and directories stand at either end.
size_t Place(Random *random, size_t size) {
  const size_t place = random->Below(size);
  switch (random->Below(3)) {
    case 0:
      return place;
    case 1:
      return std::min<size_t>(place, 70);
    default:
      return size - 1 - std::min(size - 1, place % 250);
  }
}

std::string Number(Random *random) {
  static const uint32_t numbers[] = {0, 1, 2, 3, 4, 8, 16, 255, 256, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff};
  const uint32_t number = numbers[random->Below(std::size(numbers))];
  const size_t size = random->OneIn(2) ? 4 : 2;
  const bool is_big_endian = random->OneIn(2);
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>(number >> (8 * (is_big_endian ? size - 1 - i : i)));
  }
  return text;
}

void Mutate(Random *random, const Strings &seeds, std::string *content) {
  const size_t place = Place(random, content->size());
  switch (random->Below(7)) {
    case 0:
      (*content)[place] = static_cast<char>((*content)[place] ^ 1 << random->Below(8));
      break;
    case 1:
      (*content)[place] = static_cast<char>(random->Below(256));
      break;
    case 2:
      content->replace(place, 4, Number(random));
      break;
    case 3:
      content->erase(place, 1 + random->Below(40));
      break;
    case 4:
      content->insert(place, content->substr(place, 1 + random->Below(40)));
      break;
    case 5:
      content->resize(place);
      break;
    default: {  // a part of another
      const std::string &other = random->Of(seeds);
      content->insert(place, other.substr(random->Below(other.size()), 1 + random->Below(60)));
    }
  }
  if (content->empty()) *content = "x";
}

// Makes the checksums of a PNG right, so that what stands behind them is looked at.
void MendChecksums(std::string *content) {
  auto *const data = reinterpret_cast<uint8_t *>(content->data());
  if (!IsPng({data, content->size()})) return;
  for (size_t start = 8; start + 12 <= content->size();) {
    const size_t length = BigEndian32(data + start);
    if (length > content->size() - start - 12) return;
    const auto checksum = static_cast<uint32_t>(crc32(0, data + start + 4, static_cast<uInt>(length + 4)));
    for (size_t i = 0; i < 4; ++i) data[start + 8 + length + i] = static_cast<uint8_t>(checksum >> (24 - 8 * i));
    start += 12 + length;
  }
}

// Reads a picture and makes an input of it. Returns whether it was read.
bool Read(Random *random, const std::string &content) {
  // of exactly its size, so that a look behind its end is found
  const std::vector<uint8_t> bytes(content.begin(), content.end());
  try {
    const Picture picture = DecodePicture("name", bytes.data(), bytes.size());
    const Image &image = picture.image;
    CHECK(image.width > 0 && image.height > 0 && (image.channels == 1 || image.channels == 3));
    CHECK(image.pixels.size() == image.width * image.height * image.channels);
    CHECK(image.width * image.height <= PixelLimit());
    Box box;
    box.x = random->Below(image.width);
    box.y = random->Below(image.height);
    box.width = 1 + random->Below(image.width - box.x);
    box.height = 1 + random->Below(image.height - box.y);
    const size_t width = 1 + random->Below(kLargestSide), height = 1 + random->Below(kLargestSide);
    std::vector<float> input(3 * width * height);
    ToNetworkInput(Cut(image.view(), box), width, height, Normalisation(), input.data());
    CHECK(std::all_of(input.begin(), input.end(), [](float value) { return -3.0F < value && value < 3.0F; }));
    return true;
  } catch (const Error &error) {
    CHECK(Contains(error.what(), "name: "));
    return false;
  }
}

int Main(const std::string &folder, const FuzzRange &range) {
  ::setenv("STPM_MAX_PIXELS", kMostPixels, 1);
  const Strings seeds = ReadFolder(folder);
  fuzz_subject = "a damaged picture";
  uint64_t read = 0;
  const bool is_right = TryInputs(range, "picture_fuzz_test " + folder, 120, [&](Random *random) {
    std::string content = random->Of(seeds);
    for (size_t changes = random->Below(5); changes > 0; --changes) Mutate(random, seeds, &content);
    if (!random->OneIn(3)) MendChecksums(&content);
    read += Read(random, content) ? 1 : 0;
  });
  std::printf("%llu inputs, %llu read\n", static_cast<unsigned long long>(range.count),
              static_cast<unsigned long long>(read));
  return is_right ? 0 : 1;
}

}  // namespace
}  // namespace stpm

int main(int argc, char *argv[]) { return stpm::Main(argc > 1 ? argv[1] : ".", stpm::ParseFuzzRange(argc, argv, 2)); }
