#include "inc/inspect_options.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "inc/cores.h"
#include "inc/flags.h"

namespace stpm {
namespace {

// Returns which of some words a flag's value is. Throws UsageError.
template <typename Choice>
Choice ParseChoice(const std::string &flag, const std::string &text,
                   const std::vector<std::pair<std::string, Choice>> &choices) {
  std::string names;
  for (const auto &[name, choice] : choices) {
    if (text == name) return choice;
    names += (names.empty() ? "" : name == choices.back().first ? " or " : ", ") + name;
  }
  throw UsageError(flag + ": expected " + names + ", got '" + text + "'");
}

// Throws UsageError if a flag is given without the one that it belongs to.
void Belongs(const char *flag, bool is_given, const char *to, bool has_it) {
  if (is_given && !has_it) throw UsageError(std::string(flag) + ": is for " + to + " only");
}

void Check(const InspectOptions &options) {
  RequirePath("--model", options.model.mindir_path);
  const int sources = !options.images.empty() + !options.watch.empty() + options.is_stdin;
  if (sources != 1 && !(sources == 0 && options.model.selftest)) {
    throw UsageError("expected one of --images, --watch and --stdin, got " + std::to_string(sources));
  }
  const bool is_watch = !options.watch.empty(), is_shown = options.overlay != Overlay::kNone;
  Belongs("--after", options.after != After::kKeep, "--watch", is_watch);
  Belongs("--after_dir", !options.after_dir.empty(), "--after move", options.after == After::kMove);
  Belongs("--journal", !options.journal.empty(), "--watch", is_watch);
  Belongs("--poll_seconds", options.poll.count() > 0, "--watch", is_watch);
  Belongs("--overlay_dir", !options.overlay_dir.empty(), "--overlay defective or all", is_shown);
  if (is_shown && options.overlay_dir.empty()) throw UsageError("--overlay_dir is required with --overlay");
}

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// Returns where a path leads: "." has no name of its own. A path that leads nowhere is refused later.
std::string RealPath(const std::string &path) {
  const std::unique_ptr<char, void (*)(void *)> found(::realpath(path.c_str(), nullptr), std::free);
  return found == nullptr ? path : found.get();
}

}  // namespace

std::string InspectUsage(const std::string &program) {
  return "usage: " + program + R"( --model FILE (--images PATH | --watch DIR | --stdin) [flags]

Inspects pictures: a line for each, in the order of input, with anomaly score, verdict and regions.

  --model FILE         model that export.py wrote (MINDIR), its JSON beside it
  --images PATH        a picture, or a folder of them: PNG, JPEG, BMP, TIFF
  --watch DIR          every picture that comes into a folder, until SIGTERM or SIGINT
  --stdin              a path per line
  --format F           csv or jsonl (default csv)
  --out FILE           receives the lines in place of stdout; --watch appends, else the file is replaced
  --overlay WHICH      none, defective or all: pictures that show the defect outlined, and the anomaly map (default none)
  --overlay_dir DIR    where to
  --after WHAT         what becomes of a watched file: keep, move or delete (default keep; unreadable ones are not deleted)
  --after_dir DIR      where they are moved to (default DIR/inspected, below the watched folder)
  --journal FILE       which watched files have been reported (default: the --out file or the watched folder, .journal)
  --poll_seconds X     look at the watched folder so often, as network shares need it (default 0: the system tells)
  --deadline_ms X      mark and count pictures that took longer, from being taken up to their line; nothing is dropped
  --report_every N     p50, p99 and pictures a second on stderr every N pictures (default 1000; 0: never)
  --decoders N         threads that read pictures (default: the cores that affinity and CPU quota allow)
  --threads N          threads of the inference on CPU (default: the same)
  --device_type TYPE   Ascend, GPU or CPU (default auto: Ascend where there is one, else CPU)
  --device_id N        number of the card (default 0; not used on CPU)
  --precision MODE     on Ascend enforce_fp32 (default), preferred_fp32, enforce_fp16 or preferred_optimal;
                       on GPU enforce_fp32 (default) or preferred_fp16
  --threshold X        anomaly score from which an image is defective, in place of the model's own
  --review X           share of the threshold from which an image is called 'review', in place of the model's own
  --selftest           first check that the device computes what the model's JSON says; alone, only that
)";
}

InspectOptions ParseInspectOptions(int argc, char *const argv[]) {
  InspectOptions options;
  Flags flags = ModelFlags(&options.model);
  const auto path = [&](const char *flag, std::string *to) {
    flags[flag] = [=](const std::string &value) {
      if (value.empty()) throw UsageError(std::string(flag) + ": expected a path, got ''");
      *to = value;
    };
  };
  path("--model", &options.model.mindir_path);
  path("--images", &options.images);
  path("--watch", &options.watch);
  path("--out", &options.out);
  path("--overlay_dir", &options.overlay_dir);
  path("--after_dir", &options.after_dir);
  path("--journal", &options.journal);
  flags["--format"] = [&](const std::string &value) {
    options.format = ParseChoice<Format>("--format", value, {{"csv", Format::kCsv}, {"jsonl", Format::kJsonl}});
  };
  flags["--overlay"] = [&](const std::string &value) {
    options.overlay = ParseChoice<Overlay>(
        "--overlay", value, {{"none", Overlay::kNone}, {"defective", Overlay::kDefective}, {"all", Overlay::kAll}});
  };
  flags["--after"] = [&](const std::string &value) {
    options.after = ParseChoice<After>("--after", value,
                                       {{"keep", After::kKeep}, {"move", After::kMove}, {"delete", After::kDelete}});
  };
  flags["--poll_seconds"] = [&](const std::string &value) {
    const auto is_right = [](double number) { return number >= 0.0 && number <= 86400.0; };
    const double seconds = ParseNumber("--poll_seconds", value, is_right, "from 0 to 86400");
    options.poll = std::chrono::milliseconds(static_cast<int64_t>(std::ceil(1000.0 * seconds)));
  };
  flags["--deadline_ms"] = [&](const std::string &value) {
    const auto is_right = [](double number) { return number > 0.0 && number <= 1e9; };
    options.deadline = ParseNumber("--deadline_ms", value, is_right, "above 0, up to 1e9");
  };
  flags["--report_every"] = [&](const std::string &value) {
    options.report_every = static_cast<size_t>(ParseInteger("--report_every", value, 0, 1000000000));
  };
  flags["--decoders"] = [&](const std::string &value) {
    options.decoders = static_cast<size_t>(ParseInteger("--decoders", value, 1, 256));
  };
  ParseFlags(
      argc, argv, flags,
      {{"--help", &options.model.help}, {"--selftest", &options.model.selftest}, {"--stdin", &options.is_stdin}});
  if (options.model.help) return options;
  Check(options);
  CompleteModelOptions(&options.model);
  if (options.decoders == 0) options.decoders = static_cast<size_t>(CoreCount());
  options.watch = WithoutSlashes(options.watch);
  if (options.after == After::kMove && options.after_dir.empty()) options.after_dir = Join(options.watch, "inspected");
  if (!options.watch.empty() && options.journal.empty()) {
    options.journal = (options.out.empty() ? RealPath(options.watch) : options.out) + ".journal";
  }
  return options;
}

}  // namespace stpm
