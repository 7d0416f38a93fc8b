#include "inc/watch.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "inc/utils.h"

namespace stpm {
namespace {

constexpr int kTick = 1000;  // milliseconds between looks at the folder itself

constexpr uint32_t kEvents =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

// Returns whether a process of this system has the file open for writing, where the system tells: of own files.
bool IsBeingWritten(const std::string &path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  const bool is_refused = ::fcntl(fd, F_SETLEASE, F_RDLCK) != 0;
  const bool is_written = is_refused && errno == EAGAIN;
  if (!is_refused) ::fcntl(fd, F_SETLEASE, F_UNLCK);
  ::close(fd);
  return is_written;
}

}  // namespace

WatchSource::WatchSource(const WatchSettings &settings, Journal *journal, const Stop *stop,
                         std::function<void(const Job &)> leftover)
    : settings_(settings), journal_(journal), stop_(stop), leftover_(std::move(leftover)) {
  struct stat status = {};
  if (::stat(settings_.folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    throw Error(settings_.folder + ": no such folder to watch");
  }
  if (settings_.poll.count() == 0) {
    events_ = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (events_ < 0) {
      throw Error(std::string("inotify: ") + std::strerror(errno) +
                  "; raise fs.inotify.max_user_instances, or look every second by --poll_seconds 1");
    }
  }
  std::signal(SIGIO, SIG_IGN);  // comes when somebody opens a file while IsBeingWritten looks at it
  if (!Watch()) throw Error(settings_.folder + ": cannot be watched: " + std::strerror(errno));
}

WatchSource::~WatchSource() {
  if (events_ >= 0) ::close(events_);
}

std::optional<Job> WatchSource::Next() {
  while (!stop_->IsSet()) {
    if (!ready_.empty()) {
      const Job job = std::move(ready_.front());
      ready_.pop_front();
      if (!journal_->Claim(job.file, job.identity)) continue;
      return job;
    }
    stop_->WaitFor(watch_ >= 0 ? events_ : -1, MillisecondsToWait());
    ReadEvents();
    CheckFolder();
    TakeSettled();
  }
  return std::nullopt;
}

int WatchSource::MillisecondsToWait() const {
  const Clock::time_point now = Clock::now();
  Clock::time_point end = std::min(now + std::chrono::milliseconds(kTick), std::max(next_look_, now));
  for (const auto &[name, seen] : settling_) end = std::min(end, seen.since + settings_.settle);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
  return static_cast<int>(std::max<decltype(left)>(left, 0));
}

bool WatchSource::Watch() {
  struct stat status = {};
  if (events_ >= 0) {
    watch_ = ::inotify_add_watch(events_, settings_.folder.c_str(), kEvents);
    if (watch_ < 0) return false;
  }
  if (::stat(settings_.folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    Unwatch();
    return false;
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  is_there_ = true;
  next_look_ = Clock::now();
  looked_at_.clear();
  return true;
}

void WatchSource::Unwatch() {
  if (watch_ >= 0) ::inotify_rm_watch(events_, watch_);
  watch_ = -1;
  is_there_ = false;
}

void WatchSource::CheckFolder() {
  struct stat status = {};
  const bool exists = ::stat(settings_.folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  const bool is_same = is_there_ && exists && status.st_dev == device_ && status.st_ino == inode_;
  const bool was_there = is_there_ || inode_ != 0;
  if (!is_same) {
    if (is_there_) Unwatch();
    if (was_there) {
      std::fprintf(stderr, "warning: %s: is gone or was replaced; waiting for it\n", settings_.folder.c_str());
      settling_.clear();
      inode_ = 0;
    }
    if (exists && Watch()) std::fprintf(stderr, "%s: is there again\n", settings_.folder.c_str());
  }
  if (is_there_ && Clock::now() >= next_look_) LookThrough();
}

void WatchSource::LookThrough() {
  std::vector<std::string> names;
  try {
    names = ListPictures(settings_.folder);
  } catch (const Error &error) {
    std::fprintf(stderr, "warning: %s\n", error.what());  // it is there, and may be readable again
    next_look_ = Clock::now() + std::chrono::milliseconds(kTick);
    return;
  }
  for (const std::string &name : names) {
    const std::optional<FileIdentity> identity = Identify(name);
    if (!identity) continue;
    if (journal_->IsToGo(name, *identity)) {
      leftover_({name, Join(settings_.folder, name), Clock::now(), *identity});
    } else {
      Note(name, *identity);
    }
  }
  if (events_ < 0) {
    // only what was seen there: an empty folder can be a share that is not mounted
    for (const std::string &name : looked_at_) {
      if (!std::binary_search(names.begin(), names.end(), name)) journal_->Forget(name);
    }
    looked_at_ = std::move(names);
    next_look_ = Clock::now() + settings_.poll;
  } else {
    next_look_ = Clock::time_point::max();  // from now on the system tells
  }
}

void WatchSource::Note(const std::string &name, const FileIdentity &identity) {
  if (journal_->IsKnown(name, identity)) {
    settling_.erase(name);
    return;
  }
  const auto [seen, is_new] = settling_.try_emplace(name, Seen{identity, Clock::now()});
  if (!is_new && !(seen->second.identity == identity)) seen->second = {identity, Clock::now()};
}

void WatchSource::TakeSettled() {
  std::vector<std::pair<std::string, FileIdentity>> settled;
  for (auto seen = settling_.begin(); seen != settling_.end();) {
    if (Clock::now() - seen->second.since < settings_.settle) {
      ++seen;
      continue;
    }
    const std::optional<FileIdentity> identity = Identify(seen->first);
    const bool is_same = identity && *identity == seen->second.identity;
    if (identity && (!is_same || IsBeingWritten(Join(settings_.folder, seen->first)))) {
      seen->second = {*identity, Clock::now()};
      ++seen;
      continue;
    }
    if (is_same) settled.emplace_back(seen->first, *identity);
    seen = settling_.erase(seen);
  }
  std::stable_sort(settled.begin(), settled.end(),
                   [](const auto &one, const auto &other) { return one.second.modified < other.second.modified; });
  for (const auto &[name, identity] : settled) TakeUp(name, identity);
}

void WatchSource::ReadEvents() {
  if (events_ < 0) return;
  alignas(inotify_event) char buffer[64 * 1024];
  ssize_t got = 0;
  while ((got = ::read(events_, buffer, sizeof(buffer))) > 0) {
    for (ssize_t at = 0; at < got;) {
      const auto *const event = reinterpret_cast<const inotify_event *>(buffer + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      if ((event->mask & IN_Q_OVERFLOW) != 0) {
        next_look_ = Clock::now();
      } else if (event->wd == watch_) {
        OnEvent(event->mask, event->len == 0 ? "" : event->name);
      }
    }
  }
}

void WatchSource::OnEvent(uint32_t mask, const std::string &name) {
  if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) != 0) {
    if ((mask & IN_IGNORED) != 0) watch_ = -1;  // the system has removed it
    Unwatch();
    return;
  }
  if ((mask & IN_ISDIR) != 0 || name.empty() || !IsPictureName(name)) return;
  if ((mask & (IN_DELETE | IN_MOVED_FROM)) != 0) {
    settling_.erase(name);
    journal_->Forget(name);
    return;
  }
  const std::optional<FileIdentity> identity = Identify(name);
  if (!identity) return;  // renamed or removed meanwhile, which has an event of its own
  if ((mask & IN_CREATE) != 0) {
    // of a new file there is nothing yet, a link has all
    struct stat status = {};
    const bool exists = ::lstat(Join(settings_.folder, name).c_str(), &status) == 0;
    if (!exists || (!S_ISLNK(status.st_mode) && status.st_nlink < 2)) return;
  }
  if (identity->bytes == 0) {
    Note(name, *identity);
  } else {
    settling_.erase(name);
    TakeUp(name, *identity);
  }
}

std::optional<FileIdentity> WatchSource::Identify(const std::string &name) const {
  struct stat status = {};
  if (::stat(Join(settings_.folder, name).c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  const int64_t modified = static_cast<int64_t>(status.st_mtim.tv_sec) * 1000000000 + status.st_mtim.tv_nsec;
  return FileIdentity{static_cast<uint64_t>(status.st_size), modified, events_ < 0 ? 0 : status.st_ino};
}

void WatchSource::TakeUp(const std::string &name, const FileIdentity &identity) {
  ready_.push_back({name, Join(settings_.folder, name), Clock::now(), identity});
}

}  // namespace stpm
