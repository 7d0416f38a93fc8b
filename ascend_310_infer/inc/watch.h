// The pictures of a folder as they come: each once, when whoever writes it has finished.
#ifndef STPM_INC_WATCH_H_
#define STPM_INC_WATCH_H_

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "inc/journal.h"
#include "inc/source.h"

namespace stpm {

struct WatchSettings {
  std::string folder;
  // Between two looks at the whole folder, for shares whose servers tell of nothing; 0: the system tells (inotify).
  std::chrono::milliseconds poll{0};
  // For how long a file must not change that was there before anybody could tell whether it is finished.
  std::chrono::milliseconds settle{1000};
};

// A file is finished when it is closed after writing or gets its name by a rename or a link. One that is found by
// looking, as at the start and when polling, or that is empty, is finished when it has not changed between two looks.
// The folder may vanish and come back; it is then looked through.
class WatchSource : public Source {
 public:
  // Throws Error: there is no such folder, or it cannot be watched.
  //   leftover: called with files that were reported, and should have been moved or deleted, by a process before
  WatchSource(const WatchSettings &settings, Journal *journal, const Stop *stop,
              std::function<void(const Job &)> leftover);
  ~WatchSource() override;

  std::optional<Job> Next() override;

 private:
  struct Seen {
    FileIdentity identity;
    Clock::time_point since;
  };

  bool Watch();  // begins to watch the folder, if it is there
  void Unwatch();
  void CheckFolder();  // notices that it has gone, come back, or been replaced
  void LookThrough();  // notes what is there
  void TakeSettled();  // takes what has not changed since it was noted
  void ReadEvents();
  void OnEvent(uint32_t mask, const std::string &name);
  std::optional<FileIdentity> Identify(const std::string &name) const;
  void Note(const std::string &name, const FileIdentity &identity);
  void TakeUp(const std::string &name, const FileIdentity &identity);
  int MillisecondsToWait() const;

  const WatchSettings settings_;
  Journal *const journal_;
  const Stop *const stop_;
  const std::function<void(const Job &)> leftover_;
  int events_ = -1;  // inotify's descriptor; -1 when polling
  int watch_ = -1;   // the folder's number there
  bool is_there_ = false;
  uint64_t device_ = 0, inode_ = 0;  // of the folder
  Clock::time_point next_look_ = Clock::now();
  std::vector<std::string> looked_at_;  // what the last look found, when polling
  std::map<std::string, Seen> settling_;
  std::deque<Job> ready_;
};

}  // namespace stpm

#endif  // STPM_INC_WATCH_H_
