#include "inc/source.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "inc/utils.h"

namespace stpm {
namespace {

// As IMAGE_SUFFIXES in src/data/images.py.
constexpr const char *kSuffixes[] = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff"};
constexpr size_t kLongestLine = 1U << 16;  // bytes; paths have 4096 at most

std::string Suffixes() {
  std::string text;
  for (const char *const suffix : kSuffixes) text += (text.empty() ? "" : " ") + std::string(suffix);
  return text;
}

}  // namespace

bool IsPictureName(const std::string &name) {
  const size_t dot = name.find_last_of('.');
  if (dot == std::string::npos || dot == 0 || IsLeftoverName(name)) return false;
  const std::string suffix = LowerCase(name.substr(dot));
  return std::any_of(std::begin(kSuffixes), std::end(kSuffixes), [&](const char *known) { return suffix == known; });
}

std::vector<std::string> ListPictures(const std::string &folder) {
  const std::unique_ptr<DIR, int (*)(DIR *)> directory(::opendir(folder.c_str()), ::closedir);
  std::vector<std::string> names;
  errno = directory == nullptr ? errno : 0;
  while (const dirent *entry = directory == nullptr ? nullptr : ::readdir(directory.get())) {
    if (IsPictureName(entry->d_name)) names.push_back(entry->d_name);
    errno = 0;
  }
  if (errno != 0) throw Error(folder + ": cannot be listed: " + std::strerror(errno));
  std::sort(names.begin(), names.end());
  return names;
}

ListSource::ListSource(const std::string &path, const Stop *stop) : stop_(stop) {
  struct stat status = {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) {
    folder_ = path;
    names_ = ListPictures(path);
    if (names_.empty()) throw Error(path + ": holds no image (" + Suffixes() + ")");
  } else if (exists && S_ISREG(status.st_mode)) {
    const size_t slash = path.find_last_of('/');
    folder_ = slash == std::string::npos ? "" : path.substr(0, slash + 1);
    names_ = {path.substr(slash == std::string::npos ? 0 : slash + 1)};
  } else {
    throw Error(path + ": no such image or folder of images");
  }
}

std::optional<Job> ListSource::Next() {
  if (next_ == names_.size() || stop_->IsSet()) return std::nullopt;
  const std::string &name = names_[next_++];
  return Job{name, folder_.empty() ? name : Join(folder_, name), Clock::now(), {}};
}

std::optional<std::string> LineSource::NextLine() {
  while (true) {
    const size_t end = text_.find('\n');
    if (end != std::string::npos || (is_at_end_ && !text_.empty())) {
      std::string line = text_.substr(0, end);
      text_.erase(0, end == std::string::npos ? end : end + 1);
      return line;
    }
    if (is_at_end_ || stop_->WaitFor(fd_, -1)) return std::nullopt;
    if (text_.size() > kLongestLine)
      throw Error("stdin: a line of more than 65536 bytes, expected the path of a picture");
    char part[4096];
    const ssize_t got = ::read(fd_, part, sizeof(part));
    if (got < 0 && errno != EINTR && errno != EAGAIN) {
      throw Error(std::string("stdin: cannot be read: ") + std::strerror(errno));
    }
    if (got == 0) is_at_end_ = true;
    if (got > 0) text_.append(part, static_cast<size_t>(got));
  }
}

std::optional<Job> LineSource::Next() {
  while (std::optional<std::string> line = NextLine()) {
    if (stop_->IsSet()) return std::nullopt;
    if (!line->empty() && line->back() == '\r') line->pop_back();
    if (line->empty()) continue;
    const Clock::time_point now = Clock::now();
    return Job{*line, *line, now, {}};
  }
  return std::nullopt;
}

}  // namespace stpm
