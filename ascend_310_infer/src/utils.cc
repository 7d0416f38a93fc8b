#include "inc/utils.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>

#include "inc/json.h"
#include "inc/sha256.h"

namespace stpm {
namespace {

constexpr char kSuffix[] = ".bin";
constexpr size_t kSuffixLength = sizeof(kSuffix) - 1;
constexpr char kLockName[] = ".infer.lock";
constexpr char kTemporaryStart[] = ".stpm_infer.";
constexpr char kTemporaryEnd[] = ".tmp";
constexpr char kMapEnd[] = "_0.bin";
// What systems, storage servers and tools leave behind: LEFTOVERS in src/data/folders.py, to the last word.
constexpr const char *kLeftovers[] = {"thumbs.db",
                                      "ehthumbs.db",
                                      "ehthumbs_vista.db",
                                      "desktop.ini",
                                      "icon\r",
                                      "__macosx",
                                      "lost+found",
                                      "$recycle.bin",
                                      "recycler",
                                      "recycled",
                                      "system volume information",
                                      "network trash folder",
                                      "temporary items",
                                      "@eadir",
                                      "@tmp",
                                      "@sharebin",
                                      "@recycle",
                                      "@recently-snapshot",
                                      "#recycle",
                                      "#snapshot",
                                      "~snapshot",
                                      "__pycache__",
                                      "aquota.user",
                                      "aquota.group",
                                      "quota.user",
                                      "quota.group"};

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

// Calls a function with the parts of a regular file, in their order. Throws Error.
template <typename Function>
void ReadParts(const std::string &path, Function function) {
  const File file(path, O_RDONLY | O_NONBLOCK);
  if (!S_ISREG(StatusOf(file, path).st_mode)) throw Error(path + ": is not a file");
  std::vector<unsigned char> part(1U << 20);
  while (const size_t got = ReadSome(file, path, part.data(), part.size())) function(part.data(), got);
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

bool StartsWith(const std::string &text, const std::string &start) { return text.compare(0, start.size(), start) == 0; }

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = "";
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

// Returns a name for a file that is being written. Its length does not depend on the file's name, which may be as long
// as names can be.
std::string TemporaryName() {
  static std::atomic<unsigned> count = 0;
  return kTemporaryStart + HostName() + "-" + std::to_string(::getpid()) + "-" + std::to_string(count++) +
         kTemporaryEnd;
}

// Takes the number at the end of a text, and the dash before it, off the text; returns -1 if there is none.
int64_t CutNumber(std::string *text) {
  const size_t dash = text->find_last_of('-');
  if (dash == std::string::npos) return -1;
  const std::string digits = text->substr(dash + 1);
  const bool is_number =
      !digits.empty() && digits.size() < 10 && digits.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number) return -1;
  text->erase(dash);
  return std::strtoll(digits.c_str(), nullptr, 10);
}

bool IsRunning(int64_t process) { return ::kill(static_cast<pid_t>(process), 0) == 0 || errno != ESRCH; }

// Returns whether a folder, or what is in it, is on the way to one of these paths.
bool LeadsTo(const std::string &folder, const std::vector<std::string> &paths) {
  for (const std::string &path : paths) {
    for (size_t end = 0; end != std::string::npos;) {
      end = path.find('/', end + 1);
      if (IsSame(path.substr(0, end), folder)) return true;
    }
  }
  return false;
}

bool IsFolder(const std::string &path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

using Directory = std::unique_ptr<DIR, int (*)(DIR *)>;

Directory OpenDirectory(const std::string &path) { return Directory(::opendir(path.c_str()), ::closedir); }

// Returns whether a folder holds what runs write, itself or further down.
bool HoldsOutputs(const std::string &folder) {
  for (const char *const name : {kLockName, kTimingName, kStaticTimingName}) {
    if (Exists(Join(folder, name))) return true;
  }
  const Directory directory = OpenDirectory(folder);
  while (const dirent *entry = directory == nullptr ? nullptr : ::readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (entry->d_type == DT_DIR && name != "." && name != ".." && HoldsOutputs(Join(folder, name))) return true;
  }
  return false;
}

bool EndsWith(const std::string &text, const std::string &end) {
  return text.size() > end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Returns whether something by this name may stand beside inputs, whatever it is.
bool IsPassedOver(const std::string &name) {
  for (const char *const known : {kManifestName, kTimingName, kStaticTimingName, kScoresName, kOriginName}) {
    if (name == known) return true;
  }
  return IsLeftoverName(name);
}

int64_t SizeOf(const std::string &path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) ? status.st_size : -1;
}

// Returns the names of the input files of a manifest.json; none if there is no such file.
std::set<std::string> ManifestNames(const std::string &folder) {
  std::set<std::string> names;
  const std::string path = Join(folder, kManifestName);
  if (!Exists(path)) return names;
  Json manifest;
  try {
    manifest = ParseJson(ReadText(path));
  } catch (const Error &error) {
    throw Error(path + ": is damaged (" + error.what() + "), and without it maps and inputs are not told apart");
  }
  const Json *const images = manifest.Find("images");
  if (images == nullptr) return names;
  for (const Json &image : images->values) {
    const Json *const name = image.Find("name");
    if (name != nullptr) names.insert(name->text + kSuffix);
  }
  return names;
}

// Takes maps of an earlier run off the names of the .bin files in a folder, which are sorted.
void RemoveMaps(const std::string &folder, std::vector<std::string> *names) {
  const std::vector<std::string> all = *names;
  const auto may_be_map = [&](const std::string &name) {
    if (!EndsWith(name, kMapEnd)) return false;
    const std::string input = name.substr(0, name.size() - (sizeof(kMapEnd) - 1)) + kSuffix;
    if (!std::binary_search(all.begin(), all.end(), input)) return false;
    const int64_t bytes = SizeOf(Join(folder, name));
    return bytes > 0 && 3 * bytes == SizeOf(Join(folder, input));
  };
  if (!Exists(Join(folder, kLockName)) || std::none_of(all.begin(), all.end(), may_be_map)) return;
  const std::set<std::string> inputs = ManifestNames(folder);
  const auto is_map = [&](const std::string &name) { return may_be_map(name) && inputs.count(name) == 0; };
  names->erase(std::remove_if(names->begin(), names->end(), is_map), names->end());
}

}  // namespace

std::vector<std::string> ListInputs(const std::string &folder, const std::vector<std::string> &outputs) {
  const Directory directory = OpenDirectory(folder);
  if (directory == nullptr) ThrowErrno(folder, "cannot be listed, expected a folder of .bin files");
  std::vector<std::string> names;
  errno = 0;
  for (const dirent *entry = nullptr; (entry = ::readdir(directory.get())) != nullptr; errno = 0) {
    const std::string name = entry->d_name, path = Join(folder, name);
    if (IsPassedOver(name)) continue;
    if (entry->d_type != DT_REG && IsFolder(path)) {  // tens of thousands of files need no second look
      if (LeadsTo(path, outputs) || HoldsOutputs(path)) continue;
    }
    if (EndsWith(name, kSuffix)) {
      names.push_back(name);
    } else if (!LeadsTo(path, outputs)) {
      throw Error(path + ": expected only .bin files beside manifest.json");
    }
  }
  if (errno != 0) ThrowErrno(folder, "cannot be listed");
  std::sort(names.begin(), names.end());
  RemoveMaps(folder, &names);
  if (names.empty()) throw Error(folder + ": holds no .bin file; preprocess.py writes them");
  return names;
}

bool IsLeftoverName(const std::string &name) {
  const auto is_name = [lower = LowerCase(name)](const char *leftover) { return lower == leftover; };
  return name[0] == '.' || std::any_of(std::begin(kLeftovers), std::end(kLeftovers), is_name);
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
  FileMark mark;
  ReadParts(path, [&](const unsigned char *data, size_t size) {
    mark.bytes += size;
    mark.crc32 = UpdateCrc32(mark.crc32, data, size);
  });
  return mark;
}

std::string FileSha256(const std::string &path) {
  Sha256 hash;
  ReadParts(path, [&](const unsigned char *data, size_t size) { hash.Update(data, size); });
  return hash.HexDigest();
}

std::string ReadText(const std::string &path) {
  std::string text;
  ReadParts(path, [&](const unsigned char *data, size_t size) { text.append(data, data + size); });
  return text;
}

void WriteFile(const std::string &path, const void *data, size_t bytes) {
  const std::string temporary = path.substr(0, path.find_last_of('/') + 1) + TemporaryName();
  // Not synchronised to the disk: what is lost with the machine is computed again.
  File file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file.ok()) ThrowErrno(path, "cannot be written");
  const bool ok = WriteAll(file.fd(), data, bytes) && file.Close() && ::rename(temporary.c_str(), path.c_str()) == 0;
  if (!ok) {
    const int number = errno;
    ::unlink(temporary.c_str());
    errno = number;
    ThrowErrno(path, "cannot be written");
  }
}

bool WriteAll(int fd, const void *data, size_t bytes) {
  const char *const start = static_cast<const char *>(data);
  for (size_t done = 0; done < bytes;) {
    const ssize_t put = ::write(fd, start + done, bytes - done);
    if (put < 0 && errno != EINTR) return false;
    if (put > 0) done += static_cast<size_t>(put);
  }
  return true;
}

void CheckName(const std::string &folder, const std::string &name) {
  const long limit = ::pathconf(folder.c_str(), _PC_NAME_MAX);
  if (limit > 0 && name.size() > static_cast<size_t>(limit)) {
    throw Error(Join(folder, name) + ": its name has " + std::to_string(name.size()) +
                " bytes, the file system takes " + std::to_string(limit) + "; shorten the input's name");
  }
  const size_t longest =
      Join(folder, std::max(name, TemporaryName(),
                            [](const auto &one, const auto &other) { return one.size() < other.size(); }))
          .size();
  if (longest >= PATH_MAX) {
    throw Error(Join(folder, name) + ": its path has too many bytes, the system takes " + std::to_string(PATH_MAX - 1) +
                "; choose a folder with a shorter path");
  }
}

FolderLock::FolderLock(const std::string &folder, const std::string &name) {
  const std::string path = Join(folder, name);
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
  if (fd_ < 0) ThrowErrno(path, "cannot be written");
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int number = errno;
    char text[200] = "";
    const ssize_t got = number == EWOULDBLOCK ? ::pread(fd_, text, sizeof(text) - 1, 0) : 0;
    if (number == EWOULDBLOCK) {
      ::close(fd_);
      const std::string holder(text, static_cast<size_t>(std::max<ssize_t>(got, 0)));
      throw Error(folder + ": is in use by " +
                  (holder.empty() ? "an unknown process" : holder.substr(0, holder.find('\n'))) +
                  "; wait for it, or stop it (its lock is " + path + ")");
    }
    is_held_ = false;
    std::fprintf(stderr, "warning: %s: cannot be locked (%s): nothing else may write there\n", path.c_str(),
                 std::strerror(number));
  }
  // as the Python programs write it; whoever is refused reads it
  const std::string holder = "process " + std::to_string(::getpid()) + " on " + HostName() + "\n";
  if (::ftruncate(fd_, 0) != 0 || !WriteAll(fd_, holder.data(), holder.size())) {
    const int number = errno;
    ::close(fd_);
    errno = number;
    ThrowErrno(path, "cannot be written");
  }
}

FolderLock::~FolderLock() { ::close(fd_); }

void RemoveLeftovers(const std::string &folder, bool is_locked) {
  const Directory directory = OpenDirectory(folder);
  if (directory == nullptr) return;
  while (const dirent *entry = ::readdir(directory.get())) {
    std::string rest = entry->d_name;
    const size_t end = rest.size() - std::min(rest.size(), sizeof(kTemporaryEnd) - 1);
    if (!StartsWith(rest, kTemporaryStart) || rest.substr(end) != kTemporaryEnd) continue;
    rest.erase(end);
    const int64_t count = CutNumber(&rest), process = CutNumber(&rest);
    if (count < 0 || process < 0) continue;
    const bool has_ended = rest == kTemporaryStart + HostName() && !IsRunning(process);
    if (is_locked || has_ended) ::unlink(Join(folder, entry->d_name).c_str());
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

std::string LowerCase(std::string text) {
  for (char &c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string ResultName(const std::string &input_name) {
  return input_name.substr(0, input_name.size() - kSuffixLength) + kMapEnd;
}

std::string Fixed(double value, int decimals) {
  char text[400];  // the largest double has 309 digits
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

std::string Exact(float value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
  return text;
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
