#include "inc/log_capture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <vector>

namespace stpm {
namespace {

constexpr int kDeadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
constexpr size_t kDigestLines = 12;

// Of the capture under way; handlers of signals can see nothing else.
int log_fd = -1;     // what is held back
int stderr_fd = -1;  // where it would have gone
struct sigaction before[std::size(kDeadly)];

// Writes what was held back; then the signal does what it would have done. Only calls that a handler may make.
void OnDeadlySignal(int) {
  char part[4096];
  ssize_t got = 0;
  for (off_t at = 0; (got = ::pread(log_fd, part, sizeof(part), at)) > 0; at += got) {
    if (::write(stderr_fd, part, static_cast<size_t>(got)) != got) break;
  }
  static const char kText[] = "error: the inference library has crashed; a damaged model can be the cause\n";
  if (::write(stderr_fd, kText, sizeof(kText) - 1) < 0) return;
}

bool Contains(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

std::vector<std::string> Lines(const std::string &text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Returns a line of MindSpore's log, "[ERROR] ME(process,thread,program):time [file:line] function] text", without all
// but its text.
std::string TextOf(const std::string &line) {
  if (line.empty() || line[0] != '[' || !Contains(line, "):")) return line;
  const size_t place = line.find(" [");
  const size_t function = place == std::string::npos ? place : line.find("] ", place + 2);
  const size_t text = function == std::string::npos ? function : line.find("] ", function + 2);
  return text == std::string::npos ? line : line.substr(text + 2);
}

// Why a load can fail, and the texts of the library that show it (mindspore-lite, the files named). The first that
// fits counts: what comes last can be the consequence of what comes first.
struct Cause {
  bool is_of_model;  // or of the device
  const char *text;
  std::vector<const char *> signs;
};

const std::vector<Cause> &Causes() {
  static const std::vector<Cause> causes = {
      // core/load_mindir/load_model.cc
      {true,
       "is a MINDIR of a newer version than this MindSpore Lite reads; export it with --mindir_version 1, or use the "
       "MindSpore Lite of the version of MindSpore that wrote it",
       {"can only support the maximum mind ir version"}},
      // delegate/ascend_acl/model_infer.cc, kernel/ascend/src/custom_ascend_kernel.cc, the TensorRT plugin
      {false,
       "no such device, or it cannot be opened; see --device_type and --device_id (npu-smi info lists the Ascends)",
       {"Acl open device", "device_id is invalid", "Current device id", "Acl init failed", "Acl create context failed",
        "invalid input device id", "cudaSetDevice failed"}},
      // core/load_mindir/load_model.cc, cxx_api/model/model_impl.cc
      {true,
       "is damaged, or is no MINDIR; export it again",
       {"ParseFromArray failed", "ailed to load MindIR", "from pb file failed"}},
      // delegate/ascend_acl/model_process.cc
      {true,
       "is refused by the device: a model that was converted beforehand is for one kind of chip and one CANN; "
       "convert it again for these",
       {"aclmdlLoadFromMem failed"}},
      // cxx_api/dlutils.h, cxx_api/model/model_impl.cc, delegate/plugin/*.cc, kernel/ascend/plugin/*.cc
      {false,
       "a plugin of MindSpore Lite is missing or cannot be loaded; build the program with the cloud-side package "
       "(MS_LITE_HOME), and put the device's own libraries on LD_LIBRARY_PATH (Ascend: source CANN's set_env.sh)",
       {"dlopen ", "DLSoOpen", "Could not find target so", "Get path of ", "Get real path of ", "Converter func failed",
        "Failed to register"}},
      // cxx_api/model/model_impl.cc
      {true,
       "cannot be converted for the device, which happens when it is loaded; on Ascend that takes the CANN toolkit "
       "with its Python, or scripts/convert_ascend.sh beforehand",
       {"Failed to converter graph", "convert graph failed"}},
  };
  return causes;
}

}  // namespace

LogCapture::LogCapture() {
  const int log = ::memfd_create("log", MFD_CLOEXEC);
  const int saved = log < 0 ? -1 : ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  if (saved < 0 || ::dup2(log, STDERR_FILENO) < 0) {  // then it is not held back
    if (log >= 0) ::close(log);
    if (saved >= 0) ::close(saved);
    return;
  }
  log_fd = log;
  stderr_fd = saved;
  struct sigaction action = {};
  action.sa_handler = OnDeadlySignal;
  action.sa_flags = SA_RESETHAND;  // what returns from the handler happens again, and ends the process
  for (size_t i = 0; i < std::size(kDeadly); ++i) ::sigaction(kDeadly[i], &action, &before[i]);
}

LogCapture::~LogCapture() { std::fputs(Take().c_str(), stderr); }

std::string LogCapture::Take() {
  std::string text;
  if (log_fd < 0) return text;
  for (size_t i = 0; i < std::size(kDeadly); ++i) ::sigaction(kDeadly[i], &before[i], nullptr);
  ::dup2(stderr_fd, STDERR_FILENO);
  ::close(stderr_fd);
  char part[4096];
  ssize_t got = 0;
  while ((got = ::pread(log_fd, part, sizeof(part), static_cast<off_t>(text.size()))) > 0) {
    text.append(part, static_cast<size_t>(got));
  }
  ::close(log_fd);
  log_fd = stderr_fd = -1;
  return text;
}

std::string WithoutWarnings(const std::string &log) {
  if (std::getenv("GLOG_v") != nullptr) return log;
  std::string rest;
  for (const std::string &line : Lines(log)) {
    if (line.compare(0, 9, "[WARNING]") != 0) rest += line + "\n";
  }
  return rest;
}

std::string Digest(const std::string &log) {
  std::vector<std::string> kept;
  for (const std::string &line : Lines(log)) {
    const std::string text = TextOf(line);
    if (text.find_first_not_of("- ") == std::string::npos) continue;
    if (std::find(kept.begin(), kept.end(), text) == kept.end()) kept.push_back(text);
  }
  std::string digest;
  for (size_t i = kept.size() - std::min(kept.size(), kDigestLines); i < kept.size(); ++i) digest += "\n  " + kept[i];
  return digest;
}

std::string LoadFailure(const std::string &path, const std::string &device, const std::string &status,
                        const std::string &log) {
  const std::string said = "; the library says: " + status + Digest(log);
  for (const Cause &cause : Causes()) {
    const auto is_said = [&](const char *sign) { return Contains(log, sign) || Contains(status, sign); };
    if (!std::any_of(cause.signs.begin(), cause.signs.end(), is_said)) continue;
    return (cause.is_of_model ? path : device) + ": " + cause.text + said;
  }
  return path + ": cannot be loaded as a MINDIR on " + device + " (see --device_type)" + said;
}

}  // namespace stpm
