// Computes anomaly maps of preprocessed images with MindSpore Lite; see --help.
#include <memory>
#include <string>
#include <vector>

#include "inc/lite_engine.h"
#include "inc/options.h"
#include "inc/pipeline.h"
#include "inc/program.h"
#include "inc/sidecar.h"

namespace {

void Infer(const stpm::Options &options) {
  const std::string timing_path = stpm::Join(options.time_path, stpm::kTimingName);
  const std::string static_path = stpm::Join(options.time_path, stpm::kStaticTimingName);
  // what is wrong with the inputs is said before the model is looked at
  const std::vector<std::string> names = stpm::ListInputs(
      options.input_path,
      {options.result_path, options.time_path, options.mindir_path, stpm::SidecarPath(options.mindir_path)});
  const stpm::Sidecar sidecar = stpm::CheckModel(options.mindir_path);
  const stpm::DecisionRule rule = stpm::ChooseRule(sidecar, options);
  stpm::TellDevice(options);
  stpm::MakeFolder(options.time_path);
  stpm::PrepareResults(options, names);
  const stpm::FolderLock lock(options.result_path);
  stpm::RemoveLeftovers(options.result_path, lock.is_held());
  stpm::RemoveLeftovers(options.time_path, false);
  stpm::RemoveFile(timing_path);
  stpm::RemoveFile(static_path);
  const std::unique_ptr<stpm::Engine> engine = stpm::LoadLiteEngine(options);
  stpm::CheckImageSize(*engine, sidecar, options.mindir_path);
  const stpm::RunSummary summary = stpm::RunPipeline(engine.get(), options, rule, names);
  const std::string report = stpm::Report(summary), line = stpm::StaticReport(summary);
  stpm::WriteFile(static_path, line.data(), line.size());
  stpm::WriteFile(timing_path, report.data(), report.size());
  stpm::Print(report, "; what it should show is in " + timing_path);
}

}  // namespace

int main(int argc, char *argv[]) {
  return stpm::RunProgram([&] {
    const stpm::Options options = stpm::ParseOptions(argc, argv);
    if (options.help) {
      stpm::Print(stpm::Usage(argv[0]), "");
    } else if (options.selftest) {
      stpm::CheckDevice(options, stpm::LoadLiteEngine);
    } else {
      Infer(options);
    }
    return 0;
  });
}
