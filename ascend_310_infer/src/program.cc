#include "inc/program.h"

#include <cxxabi.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <typeinfo>

#include "inc/selftest.h"
#include "inc/utils.h"

namespace stpm {
namespace {

// Opens what is closed of stdin, stdout and stderr: the next file to be opened would get its number, and its text.
// What is written there fails all the same.
void ReserveStandardStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) == -1 && ::open("/dev/null", O_RDONLY) != fd) std::exit(kFailure);
  }
}

// Throws Error if nothing can be printed because stdout is closed.
void CheckStdout() {
  const int flags = ::fcntl(STDOUT_FILENO, F_GETFL);
  if (flags == -1 || (flags & O_ACCMODE) == O_RDONLY) {
    throw Error("stdout: is closed, expected something that can be written to, such as /dev/null");
  }
}

// Returns the name of the type of the exception that is being handled.
std::string ExceptionType() {
  const std::type_info *const type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "an unknown type";
  int status = 0;
  char *const name = abi::__cxa_demangle(type->name(), nullptr, nullptr, &status);
  const std::string text = name == nullptr ? type->name() : name;
  std::free(name);
  return text;
}

}  // namespace

int RunProgram(const std::function<int()> &program) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is reported as an error of the write, as a full disk is
  std::signal(SIGPIPE, SIG_IGN);  // so is a reader of stdout that has ended
  ReserveStandardStreams();
  try {
    CheckStdout();
    return program();
  } catch (const UsageError &error) {
    std::fprintf(stderr, "error: %s (--help lists all flags)\n", error.what());
    return kBadUsage;
  } catch (const std::bad_alloc &) {
    std::fputs("error: not enough memory\n", stderr);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  } catch (...) {
    std::fprintf(stderr, "error: the inference library failed with an exception of type %s\n", ExceptionType().c_str());
  }
  return kFailure;
}

void Print(const std::string &text, const std::string &way_out) {
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    throw Error("stdout: cannot be written: " + std::string(std::strerror(errno)) + way_out);
  }
}

Sidecar CheckModel(const std::string &path) {
  CheckModelFile(path);
  const Sidecar sidecar = ReadSidecar(path);
  if (!sidecar.warning.empty()) std::fprintf(stderr, "warning: %s\n", sidecar.warning.c_str());
  return sidecar;
}

void CheckImageSize(const Engine &engine, const Sidecar &sidecar, const std::string &path) {
  if (!sidecar.image_size || *sidecar.image_size == engine.image_size()) return;
  throw Error(SidecarPath(path) + ": image_size is " + Text(*sidecar.image_size) + ", but " + path +
              " takes images of " + Text(engine.image_size()) + " pixels; export it again");
}

DecisionRule ChooseRule(const Sidecar &sidecar, const Options &options) {
  DecisionRule rule = sidecar.rule;
  if (options.threshold) rule.threshold = options.threshold;
  if (options.review) rule.review = options.review;
  return rule;
}

void TellDevice(const Options &options) {
  if (options.is_device_chosen) return;
  std::fprintf(stderr, "device: %s (--device_type chooses another)\n", DeviceName(options).c_str());
}

void CheckDevice(const Options &options, const LoadEngine &load) {
  const std::string path = SidecarPath(options.mindir_path);
  const Sidecar sidecar = CheckModel(options.mindir_path);
  if (!sidecar.selftest) {
    throw Error(path + ": holds no selftest, which export.py writes; export the model again");
  }
  TellDevice(options);
  const std::unique_ptr<Engine> engine = load(options);
  CheckImageSize(*engine, sidecar, options.mindir_path);
  const SelfTestResult result = RunSelfTest(engine.get(), *sidecar.selftest, path);
  Print(SelfTestReport(result, options), "");
  if (result.map_difference > SelfTestTolerance(options) || result.score_difference > SelfTestTolerance(options)) {
    const bool is_cpu = options.device_type == DeviceType::kCpu;
    throw Error(options.mindir_path + ": selftest failed: on " + DeviceName(options) + " it does not compute what " +
                path + " says; " + (is_cpu ? "export it again" : "see docs/ascend.md, \"If the self-test fails\""));
  }
}

}  // namespace stpm
