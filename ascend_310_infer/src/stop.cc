#include "inc/stop.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <string>

#include "inc/utils.h"

namespace stpm {
namespace {

const Stop *stop_of_signals = nullptr;  // handlers of signals can see nothing else
volatile std::sig_atomic_t signal_that_came = 0;

void OnSignal(int number) {
  const int error = errno;
  signal_that_came = number;
  stop_of_signals->Set();
  errno = error;
}

}  // namespace

Stop::Stop() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw Error(std::string("no descriptor for an event: ") + std::strerror(errno));
}

Stop::~Stop() { ::close(fd_); }

void Stop::Set() const {
  const uint64_t one = 1;
  // fails only where it has been set 2^64 times; nobody reads it, so that it stays set
  if (::write(fd_, &one, sizeof(one)) < 0) return;
}

bool Stop::Wait(int milliseconds) const { return WaitFor(-1, milliseconds); }

bool Stop::WaitFor(int fd, int milliseconds) const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(milliseconds);
  pollfd polled[] = {{fd_, POLLIN, 0}, {fd, POLLIN, 0}};  // a negative descriptor is passed over
  while (::poll(polled, 2, milliseconds) < 0 && errno == EINTR) {
    if (milliseconds < 0) continue;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    milliseconds = left > 0 ? static_cast<int>(left) : 0;
  }
  return (polled[0].revents & POLLIN) != 0;
}

void StopOnSignals(const Stop *stop) {
  stop_of_signals = stop;
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  for (const int number : {SIGTERM, SIGINT}) ::sigaction(number, &action, nullptr);
}

int StopSignal() { return signal_that_came; }

}  // namespace stpm
