// Which files of a watched folder have been reported: no file twice, none left out, over restarts and kills.
//
// The journal is a file to which a line is appended before the result's line is: file and identity, and where in the
// results the line is to stand. Of a process that was killed only the last entry can be of a line that is not there as
// a whole; Settle finds that out. Where results go to stdout, nobody can tell: there the entry comes after the line, so
// that a kill between the two has the file reported again.
#ifndef STPM_INC_JOURNAL_H_
#define STPM_INC_JOURNAL_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "inc/lines.h"
#include "inc/source.h"
#include "inc/utils.h"

namespace stpm {

// Threads may call all of it.
class Journal {
 public:
  // Reads and locks the journal, which need not exist. Throws Error: another process has it, or it is no journal.
  explicit Journal(const std::string &path);
  ~Journal();
  Journal(const Journal &) = delete;
  Journal &operator=(const Journal &) = delete;

  // Cuts off what a killed process has half-written of results, and takes back the entry of that line. Throws Error.
  void Settle(LineFile *results);

  // Returns whether a file is now the caller's to inspect: it was not reported, nor claimed before.
  bool Claim(const std::string &file, const FileIdentity &identity);

  // Returns whether a file was reported or claimed.
  bool IsKnown(const std::string &file, const FileIdentity &identity) const;

  // Returns whether a file was reported, and is to be moved or deleted.
  bool IsToGo(const std::string &file, const FileIdentity &identity) const;

  // Writes a file's line to results, and the entry that says so. Throws Error.
  //   stays: whether the file is never moved or deleted
  void Report(const std::string &file, const FileIdentity &identity, bool stays, const std::string &line,
              LineFile *results, bool is_stdout);

  // Forgets a file that is gone: what gets its name is another one.
  void Forget(const std::string &file);
  void Forget(const std::string &file, const FileIdentity &identity);

 private:
  struct Entry {
    FileIdentity identity;
    bool is_reported = false;
    bool stays = false;
  };

  void Read();
  void Append(const std::string &text);
  void Compact();

  const std::string path_;
  const FolderLock lock_;
  int fd_ = -1;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;  // by file
  size_t lines_ = 0;                                // of the journal
  // the last entry that was read: its file, and where the results' line begins and ends
  std::string last_file_;
  int64_t last_start_ = -1, last_end_ = -1;
};

}  // namespace stpm

#endif  // STPM_INC_JOURNAL_H_
