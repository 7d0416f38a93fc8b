// SHA-256 as FIPS 180-4 defines it.
#ifndef STPM_INC_SHA256_H_
#define STPM_INC_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace stpm {

class Sha256 {
 public:
  // Takes the next part of the message.
  void Update(const void *data, size_t size);

  // Ends the message and returns its hash, 64 hexadecimal digits. To be called once.
  std::string HexDigest();

 private:
  void Compress();

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_ = {};
  size_t used_ = 0;  // bytes of the block
  uint64_t bytes_ = 0;
};

}  // namespace stpm

#endif  // STPM_INC_SHA256_H_
