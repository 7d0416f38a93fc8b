#include "inc/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "inc/json.h"

namespace stpm {
namespace {

constexpr char kHeader[] = "stpm_inspect journal 1\n";
constexpr size_t kMostSpare = 100000;  // lines of files that are gone, or stand twice, before the journal is rewritten

std::string FolderOf(const std::string &path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(const std::string &path) { return path.substr(path.find_last_of('/') + 1); }

// An entry: where the line begins and ends in the results (-1: not known), "stays" or "goes", the file's identity, and
// its name as a JSON string.
std::string EntryLine(int64_t start, int64_t end, bool stays, const FileIdentity &identity, const std::string &file) {
  char numbers[160];
  std::snprintf(numbers, sizeof(numbers), "%" PRId64 " %" PRId64 " %s %" PRIu64 " %" PRId64 " %" PRIu64 " ", start, end,
                stays ? "stays" : "goes", identity.bytes, identity.modified, identity.inode);
  return numbers + JsonString(file) + "\n";
}

}  // namespace

Journal::Journal(const std::string &path) : path_(path), lock_(FolderOf(path), "." + NameOf(path) + ".lock") { Read(); }

Journal::~Journal() {
  if (fd_ >= 0) ::close(fd_);
}

void Journal::Read() {
  std::string text = Exists(path_) ? ReadText(path_) : "";
  if (text.compare(0, sizeof(kHeader) - 1, kHeader) != 0) {
    // a killed process may have begun with it
    if (std::string(kHeader).compare(0, text.size(), text) != 0) throw Error(path_ + ": is no journal of stpm_inspect");
    text = kHeader;
    WriteFile(path_, text.data(), text.size());
  }
  const size_t whole = text.find_last_of('\n') + 1;  // a killed process may have written half of a line
  for (size_t at = sizeof(kHeader) - 1; at < whole;) {
    const size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    Entry entry;
    char word[8] = "";
    int name = -1;
    const int found =
        std::sscanf(line.c_str(), "%" SCNd64 " %" SCNd64 " %7s %" SCNu64 " %" SCNd64 " %" SCNu64 " %n", &last_start_,
                    &last_end_, word, &entry.identity.bytes, &entry.identity.modified, &entry.identity.inode, &name);
    const std::string place = path_ + ": is damaged at line " + std::to_string(lines_ + 2);
    if (found != 6 || name < 0) throw Error(place);
    try {
      last_file_ = ParseJson(line.substr(static_cast<size_t>(name))).text;
    } catch (const Error &error) {
      throw Error(place + ": " + error.what());
    }
    entry.is_reported = true;
    entry.stays = std::strcmp(word, "stays") == 0;
    entries_[last_file_] = entry;
    ++lines_;
  }
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(whole)) != 0) {
    throw Error(path_ + ": cannot be written: " + std::strerror(errno));
  }
}

void Journal::Settle(LineFile *results) {
  const auto size = static_cast<int64_t>(results->Size());
  // fewer bytes than where the line was to begin: the results were taken away since, as when logs are rotated
  if (last_start_ >= 0 && size >= last_start_ && size < last_end_) {
    results->Cut(static_cast<uint64_t>(last_start_));
    entries_.erase(last_file_);
    Compact();
  }
  last_start_ = last_end_ = -1;
}

bool Journal::Claim(const std::string &file, const FileIdentity &identity) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [entry, is_new] = entries_.try_emplace(file);
  if (!is_new && entry->second.identity == identity) return false;
  entry->second = {identity, false, false};
  return true;
}

bool Journal::IsKnown(const std::string &file, const FileIdentity &identity) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(file);
  return found != entries_.end() && found->second.identity == identity;
}

bool Journal::IsToGo(const std::string &file, const FileIdentity &identity) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(file);
  return found != entries_.end() && found->second.is_reported && !found->second.stays &&
         found->second.identity == identity;
}

void Journal::Report(const std::string &file, const FileIdentity &identity, bool stays, const std::string &line,
                     LineFile *results, bool is_stdout) {
  const int64_t start = is_stdout ? -1 : static_cast<int64_t>(results->Size());
  const int64_t end = is_stdout ? -1 : start + static_cast<int64_t>(line.size());
  if (is_stdout) results->Write(line);
  Append(EntryLine(start, end, stays, identity, file));
  if (!is_stdout) results->Write(line);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(file);
  if (found != entries_.end() && found->second.identity == identity) {  // else it was written anew by now
    found->second.is_reported = true;
    found->second.stays = stays;
  }
  if (lines_ > 2 * entries_.size() + kMostSpare) Compact();  // not before the line is written
}

void Journal::Forget(const std::string &file) {
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_.erase(file);
}

void Journal::Forget(const std::string &file, const FileIdentity &identity) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(file);
  if (found != entries_.end() && found->second.identity == identity) entries_.erase(found);
}

void Journal::Append(const std::string &text) {
  if (!WriteAll(fd_, text.data(), text.size())) throw Error(path_ + ": cannot be written: " + std::strerror(errno));
  ++lines_;
}

// Writes the journal anew, of what is reported and not gone.
void Journal::Compact() {
  std::string text = kHeader;
  size_t lines = 0;
  for (const auto &[file, entry] : entries_) {
    if (!entry.is_reported) continue;
    text += EntryLine(-1, -1, entry.stays, entry.identity, file);
    ++lines;
  }
  WriteFile(path_, text.data(), text.size());
  const int fd = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) throw Error(path_ + ": cannot be written: " + std::strerror(errno));
  ::close(fd_);
  fd_ = fd;
  lines_ = lines;
}

}  // namespace stpm
