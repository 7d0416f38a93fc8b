// A queue between threads that holds back whoever is ahead.
#ifndef STPM_INC_BOUNDED_QUEUE_H_
#define STPM_INC_BOUNDED_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace stpm {

template <typename Item>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}
  BoundedQueue(const BoundedQueue &) = delete;
  BoundedQueue &operator=(const BoundedQueue &) = delete;

  // Adds an item, waiting while the queue is full. Returns false, and drops the item, if the queue is closed.
  bool Push(Item item) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return is_closed_ || items_.size() < capacity_; });
    if (is_closed_) return false;
    items_.push_back(std::move(item));
    changed_.notify_all();
    return true;
  }

  // Returns the next item, waiting for it; nothing once the queue is closed and empty.
  std::optional<Item> Pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return is_closed_ || !items_.empty(); });
    return Take();
  }

  // Returns the next item if there is one.
  std::optional<Item> TryPop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return Take();
  }

  // From now on nothing is added; what is there can still be taken.
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closed_ = true;
    changed_.notify_all();
  }

  // Closes the queue and drops what is in it.
  void Abort() {
    std::deque<Item> dropped;  // destroyed after the lock is released
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closed_ = true;
    dropped.swap(items_);
    changed_.notify_all();
  }

 private:
  std::optional<Item> Take() {
    if (items_.empty()) return std::nullopt;
    std::optional<Item> item(std::move(items_.front()));
    items_.pop_front();
    changed_.notify_all();
    return item;
  }

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  bool is_closed_ = false;
};

}  // namespace stpm

#endif  // STPM_INC_BOUNDED_QUEUE_H_
