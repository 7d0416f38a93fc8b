// How a run is told to end: what is in hand is finished, nothing new is begun.
#ifndef STPM_INC_STOP_H_
#define STPM_INC_STOP_H_

namespace stpm {

// Threads and handlers of signals may call all of it.
class Stop {
 public:
  Stop();  // throws Error if the system has no descriptor left
  ~Stop();
  Stop(const Stop &) = delete;
  Stop &operator=(const Stop &) = delete;

  void Set() const;
  bool IsSet() const { return Wait(0); }

  // Waits for so many milliseconds, for ever if negative. Returns at once, and true, if it is or gets set.
  bool Wait(int milliseconds) const;

  // Does the same, and also returns, false, when there is something to read from a descriptor, or its other end closes.
  bool WaitFor(int fd, int milliseconds) const;

 private:
  int fd_;
};

// Has SIGTERM and SIGINT set this; a second one ends the process as if nobody had cared. To be called once.
void StopOnSignals(const Stop *stop);

// Returns which of the signals came, 0 if none did.
int StopSignal();

}  // namespace stpm

#endif  // STPM_INC_STOP_H_
