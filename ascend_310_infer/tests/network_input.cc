// Reads picture files and writes what the network gets, for a comparison with Python's.
//   network_input < JOBS    a line each: WIDTH HEIGHT X Y BOX_WIDTH BOX_HEIGHT PATH; a box of width 0 is the whole
// Writes, for each, "image WIDTH HEIGHT REMARKS BYTES", as many lines of remarks, and as many bytes: float32 (3,
// HEIGHT, WIDTH); or "error MESSAGE". The first two numbers are the upright picture's.
//   network_input --time COUNT PATH    writes the least milliseconds, of the processor, of decoding and of resizing
#include "inc/network_input.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <sstream>

#include "inc/picture.h"
#include "inc/resize.h"
#include "inc/utils.h"

namespace stpm {
namespace {

void Run(size_t width, size_t height, const Box &box, const std::string &path) {
  try {
    const Picture picture = ReadPicture(path);
    const ImageView whole = picture.image.view();
    std::vector<float> input(3 * width * height);
    ToNetworkInput(box.width == 0 ? whole : Cut(whole, box), width, height, Normalisation(), input.data());
    const size_t bytes = input.size() * sizeof(float);
    std::cout << "image " << whole.width << ' ' << whole.height << ' ' << picture.remarks.size() << ' ' << bytes
              << '\n';
    for (const Remark &remark : picture.remarks) std::cout << remark.kind << ' ' << remark.sentence << '\n';
    std::cout.write(reinterpret_cast<const char *>(input.data()), static_cast<std::streamsize>(bytes));
  } catch (const Error &error) {
    std::cout << "error " << error.what() << '\n';
  }
}

double Now() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

void Time(int count, const std::string &path) {
  constexpr size_t kSide = 256;
  double decoding = 1e9, resizing = 1e9;
  std::vector<float> input(3 * kSide * kSide);
  for (int i = 0; i < count; ++i) {
    const double start = Now();
    const Picture picture = ReadPicture(path);
    const double half = Now();
    ToNetworkInput(picture.image.view(), kSide, kSide, Normalisation(), input.data());
    decoding = std::min(decoding, half - start);
    resizing = std::min(resizing, Now() - half);
  }
  std::printf("%.3f %.3f\n", decoding, resizing);
}

}  // namespace
}  // namespace stpm

int main(int argc, char *argv[]) {
  if (argc == 4 && std::strcmp(argv[1], "--time") == 0) {
    stpm::Time(std::atoi(argv[2]), argv[3]);
    return 0;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    size_t width = 0, height = 0;
    stpm::Box box;
    std::string path;
    words >> width >> height >> box.x >> box.y >> box.width >> box.height;
    words.get();  // the space before the path
    std::getline(words, path);
    stpm::Run(width, height, box, path);
  }
  return std::cout.flush() ? 0 : 1;
}
