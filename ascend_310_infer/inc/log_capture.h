// What the inference library writes to stderr while it works, which is the only place where it says why it fails.
#ifndef STPM_INC_LOG_CAPTURE_H_
#define STPM_INC_LOG_CAPTURE_H_

#include <string>

namespace stpm {

// Holds back what this process writes to stderr, whichever thread does, from construction to Take() or destruction. One
// at a time: stderr and the handlers of signals are the process's. If the process is killed by an error of its own in
// that time, what was held back is written first. Where it cannot be held back (no memory, no more files), it is
// written as it comes, and Take() returns nothing.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();  // what was not taken is written
  LogCapture(const LogCapture &) = delete;
  LogCapture &operator=(const LogCapture &) = delete;

  // Ends it; returns what was written since.
  std::string Take();
};

// Returns a log without its warnings, which tell of optional libraries that are not there; all of it if the user has
// chosen with GLOG_v what is logged.
std::string WithoutWarnings(const std::string &log);

// Returns the last lines of a log, each at most once, indented and without what glog sets before them.
std::string Digest(const std::string &log);

// Returns why a model could not be loaded, in the words of whoever has to mend it, told by what the library logged and
// by the text of its status; then these.
std::string LoadFailure(const std::string &path, const std::string &device, const std::string &status,
                        const std::string &log);

}  // namespace stpm

#endif  // STPM_INC_LOG_CAPTURE_H_
