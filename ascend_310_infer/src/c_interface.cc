#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "inc/flags.h"
#include "inc/inspector.h"
#include "inc/lite_engine.h"
#include "inc/picture_reader.h"
#include "inc/program.h"
#include "inc/stpm.h"

struct stpm_model {
  std::unique_ptr<stpm::PictureReader> reader;
  std::unique_ptr<stpm::Engine> engine;
  stpm::DecisionRule rule;
  std::vector<float> images, maps;
  std::vector<stpm_region> regions;
};

namespace {

thread_local std::string error_text;

// Calls a function; returns what it returns, or failure if it throws.
template <typename Result, typename Call>
Result Guarded(Result failure, Call call) {
  error_text.clear();
  try {
    return call();
  } catch (const std::bad_alloc &) {
    error_text = "not enough memory";
  } catch (const std::exception &error) {
    error_text = error.what();
  } catch (...) {
    error_text = "the inference library failed with an exception of an unknown type";
  }
  return failure;
}

// Returns the options in the words of the programs' flags, which checks them.
stpm::Options Parse(const char *path, const stpm_options &given) {
  stpm::Options options;
  options.mindir_path = path;
  options.holds_log_back = false;
  const stpm::Flags flags = stpm::ModelFlags(&options);
  const auto set = [&](const char *flag, const std::string &value) { flags.at(flag)(value); };
  if (given.device_type != nullptr) set("--device_type", given.device_type);
  set("--device_id", std::to_string(given.device_id));
  if (given.threads != 0) set("--threads", std::to_string(given.threads));
  const auto is_set = [](float value) { return value < 0.0F || value > 0.0F || value != value; };
  if (is_set(given.threshold)) set("--threshold", stpm::Exact(given.threshold));
  if (is_set(given.review)) set("--review", stpm::Exact(given.review));
  stpm::CompleteModelOptions(&options);
  return options;
}

stpm_verdict Verdict(const std::string &verdict) {
  if (verdict.empty()) return STPM_UNDECIDED;
  return verdict == "good" ? STPM_GOOD : verdict == "review" ? STPM_REVIEW : STPM_DEFECTIVE;
}

void Infer(stpm_model *model, const stpm::Prepared &prepared, stpm_result *result) {
  const stpm::ImageSize size = model->engine->image_size();
  for (size_t place = 0; place < model->engine->batch_size(); ++place) {
    std::memcpy(&model->images[place * prepared.input.size()], prepared.input.data(),
                prepared.input.size() * sizeof(float));
  }
  model->engine->Infer(model->images.data(), model->maps.data());
  if (!stpm::IsFinite(model->maps.data(), size)) throw stpm::Error("the anomaly map holds NaN or infinity");
  const stpm::Finding finding = stpm::Judge(model->maps.data(), size, model->rule, prepared.box);
  model->regions.clear();
  for (const stpm::Region &region : finding.regions) {
    model->regions.push_back({region.x, region.y, region.width, region.height, region.area, region.score});
  }
  *result = {Verdict(finding.verdict), finding.score,        finding.relative_score.value_or(0.0F),
             model->maps.data(),       size.width,           size.height,
             model->regions.data(),    model->regions.size()};
}

void RequireArguments(bool are_there) {
  if (!are_there) throw stpm::Error("an argument is NULL");
}

}  // namespace

stpm_model *stpm_open(const char *path, const stpm_options *options) {
  return Guarded(static_cast<stpm_model *>(nullptr), [&] {
    RequireArguments(path != nullptr);
    const stpm::Options parsed = Parse(path, options == nullptr ? stpm_options{} : *options);
    auto model = std::make_unique<stpm_model>();
    const stpm::Sidecar sidecar = stpm::CheckModel(path);
    model->reader = std::make_unique<stpm::PictureReader>(path, sidecar);
    model->rule = stpm::ChooseRule(sidecar, parsed);
    {
      static std::mutex mutex;  // what the library logs while it loads is held back, of one load at a time
      const std::lock_guard<std::mutex> lock(mutex);
      model->engine = stpm::LoadLiteEngine(parsed);
    }
    stpm::CheckImageSize(*model->engine, sidecar, path);
    model->images.resize(model->engine->batch_size() * model->engine->input_floats());
    model->maps.resize(model->engine->batch_size() * model->engine->output_floats());
    return model.release();
  });
}

int stpm_inspect(stpm_model *model, const stpm_frame *frame, stpm_result *result) {
  return Guarded(-1, [&] {
    RequireArguments(model != nullptr && frame != nullptr && frame->pixels != nullptr && result != nullptr);
    const stpm_frame &given = *frame;
    const std::string text = std::to_string(given.width) + "x" + std::to_string(given.height) + " pixels of " +
                             std::to_string(given.channels) + " channels, stride " + std::to_string(given.stride);
    constexpr size_t kMost = size_t{1} << 31;
    const bool is_image = given.width > 0 && given.height > 0 && given.width < kMost && given.height < kMost &&
                          (given.channels == 1 || given.channels == 3) &&
                          (given.stride == 0 || given.stride >= given.width * given.channels);
    if (!is_image) throw stpm::Error("the frame: " + text + "; expected 1 or 3 channels and rows that fit the stride");
    const size_t stride = given.stride == 0 ? given.width * given.channels : given.stride;
    const stpm::ImageView image = {given.pixels, given.width, given.height, given.channels, stride};
    Infer(model, model->reader->See("the frame", image), result);
    return 0;
  });
}

int stpm_inspect_file(stpm_model *model, const char *path, stpm_result *result) {
  return Guarded(-1, [&] {
    RequireArguments(model != nullptr && path != nullptr && result != nullptr);
    Infer(model, model->reader->Read(path), result);
    return 0;
  });
}

const char *stpm_error(void) { return error_text.c_str(); }

void stpm_close(stpm_model *model) { delete model; }
