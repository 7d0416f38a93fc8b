#include "inc/results.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "inc/sha256.h"
#include "inc/utils.h"

namespace stpm {
namespace {

constexpr size_t kLongestName = 200;  // bytes, of the 255 that file systems take: more is added

// Returns what the overlay of a picture is called: as picture_name in src/predict.py, of a path without its slashes.
std::string OverlayName(std::string file) {
  std::replace(file.begin(), file.end(), '/', '_');
  if (file.size() <= kLongestName) return file + ".png";
  Sha256 hash;
  hash.Update(file.data(), file.size());
  size_t length = kLongestName;
  while (length > 0 && (static_cast<unsigned char>(file[length]) & 0xC0U) == 0x80) --length;  // whole characters
  return file.substr(0, length) + "-" + hash.HexDigest().substr(0, 16) + ".png";
}

}  // namespace

Results::Results(const InspectOptions &options, const DecisionRule &rule, Journal *journal, Draw draw)
    : options_(options),
      journal_(journal),
      draw_(std::move(draw)),
      lines_(options.out, journal != nullptr),
      statistics_(rule) {
  const bool is_file = !options.out.empty();
  if (journal != nullptr && is_file) journal->Settle(&lines_);
  const bool has_header = is_file && lines_.Size() > 0;
  if (!has_header) lines_.Write(HeaderLine(options.format, options.deadline.has_value()));
}

void Results::Take(const Inspection &inspection) {
  const Job &job = inspection.job;
  const bool is_error = !inspection.error.empty();
  if (is_error) std::fprintf(stderr, "error: %s\n", inspection.error.c_str());
  Show(inspection);
  const double milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - job.since).count();
  const bool is_late = options_.deadline && milliseconds > *options_.deadline;
  const std::string line = PictureLine(inspection, options_.format, options_.deadline.has_value(), is_late);
  if (journal_ == nullptr) {
    lines_.Write(line);
  } else {
    const bool stays = is_error && options_.after == After::kDelete;  // it may tell why
    journal_->Report(job.file, job.identity, stays, line, &lines_, options_.out.empty());
    if (!stays) PutAway(job);
  }
  statistics_.Add(inspection.finding.verdict, milliseconds, is_late);
  if (options_.report_every != 0 && statistics_.pictures() % options_.report_every == 0) {
    std::fprintf(stderr, "%s\n", statistics_.Interval().c_str());
  }
}

void Results::Show(const Inspection &inspection) {
  const bool is_shown = options_.overlay == Overlay::kAll ||
                        (options_.overlay == Overlay::kDefective && inspection.finding.verdict == "defective");
  if (!is_shown || !inspection.error.empty()) return;
  try {
    draw_(inspection, Join(options_.overlay_dir, OverlayName(inspection.job.file)));
  } catch (const Error &error) {
    ++failures_;
    std::fprintf(stderr, "error: %s\n", error.what());
  }
}

void Results::PutAway(const Job &job) {
  if (options_.after == After::kKeep) return;
  struct stat status = {};
  if (::stat(job.path.c_str(), &status) != 0) return;  // somebody else has
  const int64_t modified = static_cast<int64_t>(status.st_mtim.tv_sec) * 1000000000 + status.st_mtim.tv_nsec;
  if (static_cast<uint64_t>(status.st_size) != job.identity.bytes || modified != job.identity.modified) return;
  bool is_done = false;
  if (options_.after == After::kDelete) {
    is_done = ::unlink(job.path.c_str()) == 0 || errno == ENOENT;
  } else {
    is_done = Move(job);
  }
  if (is_done) {
    journal_->Forget(job.file, job.identity);
    return;
  }
  const std::string problem = std::strerror(errno);
  ++failures_;
  std::fprintf(stderr, "error: %s: cannot be %s: %s; it stays, and is not reported again\n", job.path.c_str(),
               options_.after == After::kDelete ? "deleted" : ("moved to " + options_.after_dir).c_str(),
               problem.c_str());
}

// Nothing that was moved there before is replaced.
bool Results::Move(const Job &job) const {
  const size_t dot = job.file.find_last_of('.');
  for (int number = 1; number < 1000000; ++number) {
    const std::string name =
        number == 1 ? job.file : job.file.substr(0, dot) + "-" + std::to_string(number) + job.file.substr(dot);
    const std::string to = Join(options_.after_dir, name);
    if (::renameat2(AT_FDCWD, job.path.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
    if (errno == EINVAL && !Exists(to)) return ::rename(job.path.c_str(), to.c_str()) == 0;  // a share without it
    if (errno == ENOENT && !Exists(job.path)) return true;
    if (errno != EEXIST && errno != EINVAL) return false;
  }
  errno = EEXIST;
  return false;
}

}  // namespace stpm
