// Computes anomaly maps of preprocessed images with MindSpore Lite; see --help.
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "inc/lite_engine.h"
#include "inc/options.h"
#include "inc/pipeline.h"

namespace {

constexpr int kFailure = 1;
constexpr int kBadUsage = 2;

void Main(const stpm::Options &options) {
  const std::string timing_path = stpm::Join(options.time_path, "timing.txt");
  stpm::ListInputs(options.input_path);  // says what is wrong there before the model is loaded
  stpm::CheckModelFile(options.mindir_path);
  stpm::MakeFolder(options.time_path);
  stpm::RemoveFile(timing_path);
  stpm::LiteEngine engine(options);
  const std::string report = stpm::Report(stpm::RunPipeline(&engine, options));
  stpm::WriteFile(timing_path, report.data(), report.size());
  std::fputs(report.c_str(), stdout);
}

}  // namespace

int main(int argc, char *argv[]) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is reported as an error of the write, as a full disk is
  try {
    const stpm::Options options = stpm::ParseOptions(argc, argv);
    if (options.help) {
      std::fputs(stpm::Usage(argv[0]).c_str(), stdout);
    } else {
      Main(options);
    }
    return 0;
  } catch (const stpm::UsageError &error) {
    std::fprintf(stderr, "error: %s (--help lists all flags)\n", error.what());
    return kBadUsage;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kFailure;
  }
}
