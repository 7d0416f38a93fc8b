// Inspects pictures with MindSpore Lite, from files to verdicts; see --help.
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "inc/inspect_options.h"
#include "inc/inspector.h"
#include "inc/journal.h"
#include "inc/lite_engine.h"
#include "inc/overlay.h"
#include "inc/picture_reader.h"
#include "inc/program.h"
#include "inc/results.h"
#include "inc/watch.h"

namespace {

void CheckThreshold(const stpm::InspectOptions &options, const stpm::DecisionRule &rule) {
  if (rule.threshold) return;
  const std::string &path = options.model.mindir_path;
  const std::string way_out = "calibrate it (python -m src.calibrate) or give --threshold";
  if (options.overlay != stpm::Overlay::kNone) {
    throw stpm::Error("--overlay: " + path + " has no threshold, which is the unit of the colours; " + way_out);
  }
  std::fprintf(stderr, "warning: no verdicts: %s has no threshold; %s\n", path.c_str(), way_out.c_str());
}

// Makes the folders that are written to. Throws Error: one is where pictures come from, so that what is written would
// be inspected, or watched files cannot be moved to it.
void MakeFolders(const stpm::InspectOptions &options) {
  const std::string &source = options.watch.empty() ? options.images : options.watch;
  struct stat from = {}, to = {};
  const bool exists = ::stat(source.c_str(), &from) == 0;  // else --after_dir, in it, would make it
  if (!options.watch.empty() && !exists) throw stpm::Error(options.watch + ": no such folder to watch");
  for (const auto &[flag, folder] :
       {std::make_pair("--overlay_dir", options.overlay_dir), std::make_pair("--after_dir", options.after_dir)}) {
    if (folder.empty()) continue;
    stpm::MakeFolder(folder);
    stpm::RemoveLeftovers(folder, false);
    if (!source.empty() && stpm::IsSame(folder, source)) {
      throw stpm::Error(std::string(flag) + " " + folder + ": is where the pictures come from; choose another folder");
    }
  }
  if (options.after_dir.empty() || ::stat(options.after_dir.c_str(), &to) != 0) return;
  if (from.st_dev != to.st_dev) {
    throw stpm::Error("--after_dir " + options.after_dir + ": is on another file system than " + options.watch +
                      ", where files cannot be moved to; choose a folder on the same one");
  }
}

// Inspects what a source gives; returns the exit status.
int Inspect(const stpm::InspectOptions &options) {
  const stpm::Stop stop;
  const std::string &model_path = options.model.mindir_path;
  // what is wrong with the pictures is said before the model is looked at
  std::unique_ptr<stpm::ListSource> list;
  if (!options.images.empty()) list = std::make_unique<stpm::ListSource>(options.images, &stop);
  const stpm::Sidecar sidecar = stpm::CheckModel(model_path);
  stpm::PictureReader reader(model_path, sidecar);
  const stpm::DecisionRule rule = stpm::ChooseRule(sidecar, options.model);
  CheckThreshold(options, rule);
  MakeFolders(options);
  std::unique_ptr<stpm::Journal> journal;
  if (!options.watch.empty()) journal = std::make_unique<stpm::Journal>(options.journal);
  stpm::TellDevice(options.model);
  const std::unique_ptr<stpm::Engine> engine = stpm::LoadLiteEngine(options.model);
  stpm::CheckImageSize(*engine, sidecar, model_path);

  const auto draw = [&](const stpm::Inspection &inspection, const std::string &path) {
    stpm::DrawOverlay(inspection, reader.image_size(), rule, path);
  };
  stpm::Results results(options, rule, journal.get(), draw);
  stpm::StopOnSignals(&stop);
  stpm::LineSource lines(STDIN_FILENO, &stop);
  std::unique_ptr<stpm::WatchSource> watch;
  if (journal) {
    const stpm::WatchSettings settings = {options.watch, options.poll};
    watch = std::make_unique<stpm::WatchSource>(settings, journal.get(), &stop,
                                                [&](const stpm::Job &job) { results.PutAway(job); });
    std::fprintf(stderr, "watching %s\n", options.watch.c_str());
  }
  stpm::Source *const source = list    ? static_cast<stpm::Source *>(list.get())
                               : watch ? static_cast<stpm::Source *>(watch.get())
                                       : &lines;
  stpm::Inspect(
      engine.get(), rule, source, &stop, options.decoders, [&](const stpm::Job &job) { return reader.Read(job.path); },
      [&](const stpm::Inspection &inspection) { results.Take(inspection); });

  std::fprintf(stderr, "%s\n", results.statistics().Summary().c_str());
  if (watch) return results.failures() == 0 ? 0 : stpm::kFailure;  // it has no other end than to be told to
  if (stpm::StopSignal() != 0) {
    std::fprintf(stderr, "error: stopped by signal %d before the last picture\n", stpm::StopSignal());
    return stpm::kFailure;
  }
  return results.statistics().unreadable() == 0 && results.failures() == 0 ? 0 : stpm::kFailure;
}

}  // namespace

int main(int argc, char *argv[]) {
  return stpm::RunProgram([&] {
    const stpm::InspectOptions options = stpm::ParseInspectOptions(argc, argv);
    if (options.model.help) {
      stpm::Print(stpm::InspectUsage(argv[0]), "");
      return 0;
    }
    const bool has_pictures = !options.images.empty() || !options.watch.empty() || options.is_stdin;
    if (options.model.selftest) stpm::CheckDevice(options.model, stpm::LoadLiteEngine);
    return has_pictures ? Inspect(options) : 0;
  });
}
