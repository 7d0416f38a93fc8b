// Where pictures come from: a list, lines of text, or (inc/watch.h) a folder that is watched.
#ifndef STPM_INC_SOURCE_H_
#define STPM_INC_SOURCE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "inc/stop.h"

namespace stpm {

using Clock = std::chrono::steady_clock;  // which no change of the time of day moves

// By what a file is known again that has not been written anew.
struct FileIdentity {
  uint64_t bytes = 0;
  int64_t modified = 0;  // nanoseconds
  uint64_t inode = 0;    // 0 where it means nothing, as on network shares

  bool operator==(const FileIdentity &other) const {
    return bytes == other.bytes && modified == other.modified && inode == other.inode;
  }
};

// A picture that is to be inspected.
struct Job {
  std::string file;  // what it is called in the results
  std::string path;
  Clock::time_point since;  // when it was taken up
  FileIdentity identity;    // of a watched file
};

class Source {
 public:
  Source() = default;
  virtual ~Source() = default;
  Source(const Source &) = delete;
  Source &operator=(const Source &) = delete;

  // Returns the next picture, waiting for it; nothing at the end, or once the run is told to stop. Throws Error.
  virtual std::optional<Job> Next() = 0;
};

// Returns whether a file's name is that of a picture which is read: by its suffix, and no leftover of a system.
bool IsPictureName(const std::string &name);

// Returns the names of the pictures in a folder, sorted, as list_images in src/data/samples.py lists them. Throws
// Error.
std::vector<std::string> ListPictures(const std::string &folder);

// The pictures of a folder, or the one that a path is.
class ListSource : public Source {
 public:
  // Throws Error: there is no such file or folder, or it holds no picture.
  ListSource(const std::string &path, const Stop *stop);

  std::optional<Job> Next() override;
  size_t left() const { return names_.size() - next_; }  // how many were not asked for

 private:
  const Stop *const stop_;
  std::string folder_;
  std::vector<std::string> names_;
  size_t next_ = 0;
};

// Paths, one a line, as they come; empty lines are passed over, and a carriage return at an end is taken off.
class LineSource : public Source {
 public:
  LineSource(int fd, const Stop *stop) : fd_(fd), stop_(stop) {}

  std::optional<Job> Next() override;

 private:
  std::optional<std::string> NextLine();

  const int fd_;
  const Stop *const stop_;
  std::string text_;  // what was read and not yet given
  bool is_at_end_ = false;
};

}  // namespace stpm

#endif  // STPM_INC_SOURCE_H_
