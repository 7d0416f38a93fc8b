// Computes anomaly maps of preprocessed images with MindSpore Lite; see --help.
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
#include <string>
#include <typeinfo>
#include <vector>

#include "inc/lite_engine.h"
#include "inc/options.h"
#include "inc/pipeline.h"
#include "inc/selftest.h"
#include "inc/sidecar.h"

namespace {

constexpr int kFailure = 1;
constexpr int kBadUsage = 2;

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
    throw stpm::Error("stdout: is closed, expected something that can be written to, such as /dev/null");
  }
}

void Print(const std::string &text, const std::string &way_out) {
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    throw stpm::Error("stdout: cannot be written: " + std::string(std::strerror(errno)) + way_out);
  }
}

// Checks a model's file and reads what stands beside it.
stpm::Sidecar CheckModel(const std::string &path) {
  stpm::CheckModelFile(path);
  const stpm::Sidecar sidecar = stpm::ReadSidecar(path);
  if (!sidecar.warning.empty()) std::fprintf(stderr, "warning: %s\n", sidecar.warning.c_str());
  return sidecar;
}

// Throws Error unless the model takes images of the size that its JSON says.
void CheckImageSize(const stpm::Engine &engine, const stpm::Sidecar &sidecar, const std::string &path) {
  if (!sidecar.image_size || *sidecar.image_size == engine.image_size()) return;
  throw stpm::Error(stpm::SidecarPath(path) + ": image_size is " + stpm::Text(*sidecar.image_size) + ", but " + path +
                    " takes images of " + stpm::Text(engine.image_size()) + " pixels; export it again");
}

void TellDevice(const stpm::Options &options) {
  if (options.is_device_chosen) return;
  std::fprintf(stderr, "device: %s (--device_type chooses another)\n", stpm::DeviceName(options).c_str());
}

void SelfTest(const stpm::Options &options) {
  const std::string path = stpm::SidecarPath(options.mindir_path);
  const stpm::Sidecar sidecar = CheckModel(options.mindir_path);
  if (!sidecar.selftest) {
    throw stpm::Error(path + ": holds no selftest, which export.py writes; export the model again");
  }
  TellDevice(options);
  stpm::LiteEngine engine(options);
  CheckImageSize(engine, sidecar, options.mindir_path);
  const stpm::SelfTestResult result = stpm::RunSelfTest(&engine, *sidecar.selftest, path);
  Print(stpm::SelfTestReport(result, options), "");
  if (result.map_difference > stpm::SelfTestTolerance(options) ||
      result.score_difference > stpm::SelfTestTolerance(options)) {
    const bool is_cpu = options.device_type == stpm::DeviceType::kCpu;
    throw stpm::Error(options.mindir_path + ": selftest failed: on " + stpm::DeviceName(options) +
                      " it does not compute what " + path + " says; " +
                      (is_cpu ? "export it again" : "see docs/ascend.md, \"If the self-test fails\""));
  }
}

void Infer(const stpm::Options &options) {
  const std::string timing_path = stpm::Join(options.time_path, stpm::kTimingName);
  const std::string static_path = stpm::Join(options.time_path, stpm::kStaticTimingName);
  // what is wrong with the inputs is said before the model is looked at
  const std::vector<std::string> names = stpm::ListInputs(
      options.input_path,
      {options.result_path, options.time_path, options.mindir_path, stpm::SidecarPath(options.mindir_path)});
  const stpm::Sidecar sidecar = CheckModel(options.mindir_path);
  stpm::DecisionRule rule = sidecar.rule;
  if (options.threshold) rule.threshold = options.threshold;
  if (options.review) rule.review = options.review;
  TellDevice(options);
  stpm::MakeFolder(options.time_path);
  stpm::PrepareResults(options, names);
  const stpm::FolderLock lock(options.result_path);
  stpm::RemoveLeftovers(options.result_path, lock.is_held());
  stpm::RemoveLeftovers(options.time_path, false);
  stpm::RemoveFile(timing_path);
  stpm::RemoveFile(static_path);
  stpm::LiteEngine engine(options);
  CheckImageSize(engine, sidecar, options.mindir_path);
  const stpm::RunSummary summary = stpm::RunPipeline(&engine, options, rule, names);
  const std::string report = stpm::Report(summary), line = stpm::StaticReport(summary);
  stpm::WriteFile(static_path, line.data(), line.size());
  stpm::WriteFile(timing_path, report.data(), report.size());
  Print(report, "; what it should show is in " + timing_path);
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

int main(int argc, char *argv[]) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is reported as an error of the write, as a full disk is
  std::signal(SIGPIPE, SIG_IGN);  // so is a reader of stdout that has ended
  ReserveStandardStreams();
  try {
    CheckStdout();
    const stpm::Options options = stpm::ParseOptions(argc, argv);
    if (options.help) {
      Print(stpm::Usage(argv[0]), "");
    } else if (options.selftest) {
      SelfTest(options);
    } else {
      Infer(options);
    }
    return 0;
  } catch (const stpm::UsageError &error) {
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
