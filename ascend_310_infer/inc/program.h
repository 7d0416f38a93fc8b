// What the programs here have in common: streams, messages, exit status, the checks of a model.
#ifndef STPM_INC_PROGRAM_H_
#define STPM_INC_PROGRAM_H_

#include <functional>
#include <memory>
#include <string>

#include "inc/options.h"
#include "inc/pipeline.h"
#include "inc/sidecar.h"

namespace stpm {

constexpr int kFailure = 1;
constexpr int kBadUsage = 2;

// Loads the model that the options name; so that what calls it needs no inference library.
using LoadEngine = std::function<std::unique_ptr<Engine>(const Options &)>;

// Runs a program, which returns its exit status. What it throws becomes a line on stderr, and the status kBadUsage
// where the command line is wrong, else kFailure.
int RunProgram(const std::function<int()> &program);

// Writes to stdout at once. Throws Error: it cannot be written; way_out says what can be done about that.
void Print(const std::string &text, const std::string &way_out);

// Checks a model's file and reads what stands beside it.
Sidecar CheckModel(const std::string &path);

// Throws Error unless the model takes images of the size that its JSON says.
void CheckImageSize(const Engine &engine, const Sidecar &sidecar, const std::string &path);

// Returns how to decide: as the JSON file says, but for what the options say.
DecisionRule ChooseRule(const Sidecar &sidecar, const Options &options);

// Tells, on stderr, which device it is, unless the user chose it.
void TellDevice(const Options &options);

// Checks that the device computes what the model's JSON says, and prints how well. Throws Error: it does not.
void CheckDevice(const Options &options, const LoadEngine &load);

}  // namespace stpm

#endif  // STPM_INC_PROGRAM_H_
