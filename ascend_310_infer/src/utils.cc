#include "inc/utils.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

namespace stpm {
namespace {

constexpr char kSuffix[] = ".bin";
constexpr size_t kSuffixLength = sizeof(kSuffix) - 1;

// Throws an Error that ends in the text of errno.
[[noreturn]] void ThrowErrno(const std::string &path, const std::string &what) {
  const int number = errno;
  throw Error(path + ": " + what + ": " + std::strerror(number));
}

// An open file, closed at the end.
class File {
 public:
  // O_NONBLOCK: opening a pipe does not wait for its other end; it changes nothing for files.
  File(const std::string &path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  bool ok() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  // Closes; returns whether everything written is known to have been taken.
  bool Close() {
    const int fd = fd_;
    fd_ = -1;
    return ::close(fd) == 0;
  }

 private:
  int fd_;
};

// Returns the status of what was opened: by name, another file could take its place in between. Throws Error.
struct stat StatusOf(const File &file, const std::string &path, const char *wrong = "cannot be read") {
  struct stat status = {};
  if (!file.ok() || ::fstat(file.fd(), &status) != 0) ThrowErrno(path, wrong);
  return status;
}

// Reads up to size bytes; returns how many, 0 at the end of the file. Throws Error.
size_t ReadSome(const File &file, const std::string &path, void *data, size_t size) {
  ssize_t got = 0;
  do {
    got = ::read(file.fd(), data, size);
  } while (got < 0 && errno == EINTR);
  if (got < 0) ThrowErrno(path, "cannot be read");
  return static_cast<size_t>(got);
}

// Throws Error unless the status is that of a file of exactly this many bytes.
void CheckStatus(const std::string &path, const struct stat &status, size_t expected_bytes) {
  if (!S_ISREG(status.st_mode)) throw Error(path + ": is not a file");
  if (static_cast<uint64_t>(status.st_size) != expected_bytes) {
    throw Error(path + ": holds " + std::to_string(status.st_size) + " bytes, the model expects " +
                std::to_string(expected_bytes) + " (float32)");
  }
}

// Returns the CRC-32 (reflected polynomial 0xEDB88320) of what came before, and size further bytes.
uint32_t UpdateCrc32(uint32_t crc, const unsigned char *data, size_t size) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      table[i] = i;
      for (int bit = 0; bit < 8; ++bit) table[i] = (table[i] >> 1) ^ (table[i] % 2 == 0 ? 0U : 0xEDB88320U);
    }
    return table;
  }();
  crc = ~crc;
  for (size_t i = 0; i < size; ++i) crc = (crc >> 8) ^ kTable[(crc ^ data[i]) & 0xFFU];
  return ~crc;
}

}  // namespace

std::vector<std::string> ListInputs(const std::string &folder) {
  const std::unique_ptr<DIR, int (*)(DIR *)> directory(::opendir(folder.c_str()), ::closedir);
  if (directory == nullptr) ThrowErrno(folder, "cannot be listed, expected a folder of .bin files");
  std::vector<std::string> names;
  errno = 0;
  for (const dirent *entry = nullptr; (entry = ::readdir(directory.get())) != nullptr; errno = 0) {
    const std::string name = entry->d_name;
    if (name[0] == '.' || name == "manifest.json") continue;
    const bool is_input =
        name.size() > kSuffixLength && name.compare(name.size() - kSuffixLength, kSuffixLength, kSuffix) == 0;
    if (!is_input) throw Error(Join(folder, name) + ": expected only .bin files beside manifest.json");
    names.push_back(name);
  }
  if (errno != 0) ThrowErrno(folder, "cannot be listed");
  if (names.empty()) throw Error(folder + ": holds no .bin file; preprocess.py writes them");
  std::sort(names.begin(), names.end());
  return names;
}

void CheckSize(const std::string &path, size_t expected_bytes) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) ThrowErrno(path, "cannot be read");
  CheckStatus(path, status, expected_bytes);
}

void CheckModelFile(const std::string &path) {
  const File file(path, O_RDONLY | O_NONBLOCK);
  const struct stat status = StatusOf(file, path, "cannot be read, expected a MINDIR file");
  if (!S_ISREG(status.st_mode)) throw Error(path + ": is not a file, expected a MINDIR file");
  if (status.st_size == 0) throw Error(path + ": is empty, expected a MINDIR file");
}

void ReadFloats(const std::string &path, float *values, size_t count) {
  const size_t bytes = count * sizeof(float);
  const File file(path, O_RDONLY | O_NONBLOCK);
  CheckStatus(path, StatusOf(file, path), bytes);
  char *const start = reinterpret_cast<char *>(values);
  for (size_t done = 0; done < bytes;) {
    const size_t got = ReadSome(file, path, start + done, bytes - done);
    if (got == 0) throw Error(path + ": became shorter while it was read");
    done += got;
  }
  // Not for the network to judge: ReLU makes a NaN an ordinary 0.
  if (!std::all_of(values, values + count, [](float value) { return std::isfinite(value); })) {
    throw Error(path + ": holds NaN or infinity, which no picture gives; write it again with preprocess.py");
  }
}

FileMark MarkFile(const std::string &path) {
  const File file(path, O_RDONLY | O_NONBLOCK);
  if (!S_ISREG(StatusOf(file, path).st_mode)) throw Error(path + ": is not a file");
  FileMark mark;
  std::vector<unsigned char> part(1U << 20);
  while (const size_t got = ReadSome(file, path, part.data(), part.size())) {
    mark.bytes += got;
    mark.crc32 = UpdateCrc32(mark.crc32, part.data(), got);
  }
  return mark;
}

void WriteFile(const std::string &path, const void *data, size_t bytes) {
  const std::string temporary = path + "." + std::to_string(::getpid()) + ".tmp";
  const char *const start = static_cast<const char *>(data);
  // Not synchronised to the disk: what is lost with the machine is computed again.
  File file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file.ok()) ThrowErrno(path, "cannot be written");
  bool ok = true;
  for (size_t done = 0; ok && done < bytes;) {
    const ssize_t put = ::write(file.fd(), start + done, bytes - done);
    if (put < 0 && errno == EINTR) continue;
    ok = put >= 0;
    if (ok) done += static_cast<size_t>(put);
  }
  ok = ok && file.Close() && ::rename(temporary.c_str(), path.c_str()) == 0;
  if (!ok) {
    const int number = errno;
    ::unlink(temporary.c_str());
    errno = number;
    ThrowErrno(path, "cannot be written");
  }
}

bool Exists(const std::string &path) { return ::access(path.c_str(), F_OK) == 0; }

void RemoveFile(const std::string &path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) ThrowErrno(path, "cannot be replaced");
}

void MakeFolder(const std::string &path) {
  for (size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0777) != 0 && errno != EEXIST) ThrowErrno(part, "cannot be created");
  }
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) ThrowErrno(path, "cannot be created");
  if (!S_ISDIR(status.st_mode)) throw Error(path + ": is not a folder");
  if (::access(path.c_str(), W_OK | X_OK) != 0) ThrowErrno(path, "cannot be written to");
}

bool IsSame(const std::string &path, const std::string &other) {
  struct stat first = {}, second = {};
  return ::stat(path.c_str(), &first) == 0 && ::stat(other.c_str(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

std::string Join(const std::string &folder, const std::string &name) {
  return !folder.empty() && folder.back() == '/' ? folder + name : folder + "/" + name;
}

std::string ResultName(const std::string &input_name) {
  return input_name.substr(0, input_name.size() - kSuffixLength) + "_0" + kSuffix;
}

std::string CsvField(const std::string &text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace stpm
