// The files of the inference program, and how it reports what is wrong.
#ifndef STPM_INC_UTILS_H_
#define STPM_INC_UTILS_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace stpm {

// Something that the user gave is wrong, or a file cannot be read or written; what() names it.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

constexpr char kTimingName[] = "timing.txt";
constexpr char kStaticTimingName[] = "test_perform_static.txt";
constexpr char kScoresName[] = "scores.csv";
constexpr char kOriginName[] = "origin.json";
constexpr char kManifestName[] = "manifest.json";

// Returns the names of the inputs in a folder, which are its .bin files, sorted. What else may stand there: a
// manifest.json, leftovers of systems (those that src/data/folders.py passes over) and what the program itself puts
// there: times, scores.csv, origin.json, folders that hold outputs of a run, and files and folders that are one of
// these paths or through which one of them is reached.
// Maps of an earlier run may stand among the inputs. A file is taken for one if all of this holds: its name is a_0.bin
// and there is an a.bin, it has a third of that one's size (one channel of three), manifest.json does not name it, and
// there is the lock that a run leaves where it writes. Whatever else is no input of the model is refused later, by its
// size.
// Throws Error if the folder is missing, holds no input or holds anything else, or the manifest is not readable.
std::vector<std::string> ListInputs(const std::string &folder, const std::vector<std::string> &outputs = {});

// Returns whether something by this name is hidden, or what systems, storage servers and tools leave behind.
bool IsLeftoverName(const std::string &name);

// Throws Error unless the file has exactly this many bytes.
void CheckSize(const std::string &path, size_t expected_bytes);

// Throws Error unless the path is a file that can be opened and is not empty.
void CheckModelFile(const std::string &path);

// Reads a whole file of exactly count floats. Throws Error, also if it has another size or one is NaN or infinite.
void ReadFloats(const std::string &path, float *values, size_t count);

// By what a file is known again: its size and its CRC-32, that of zlib and PNG.
struct FileMark {
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
};

// Reads a file for its mark. Throws Error if that fails.
FileMark MarkFile(const std::string &path);

// Returns the SHA-256 of a file, in hexadecimal. Throws Error if it cannot be read.
std::string FileSha256(const std::string &path);

// Returns the content of a file. Throws Error if it cannot be read.
std::string ReadText(const std::string &path);

// Writes a file under a temporary name in its folder, then renames: it is there as a whole or not at all. Throws Error.
void WriteFile(const std::string &path, const void *data, size_t bytes);

// Writes all of it to a descriptor; returns whether that succeeded, errno says why not.
bool WriteAll(int fd, const void *data, size_t bytes);

// Throws Error if a file of this name could not be written into an existing folder because name or path is too long.
void CheckName(const std::string &folder, const std::string &name);

// Keeps other runs from a folder of results, as long as this or the process lives. The lock's file stays.
class FolderLock {
 public:
  // Throws Error, which names the process that has the lock, if another one has it.
  explicit FolderLock(const std::string &folder, const std::string &name = ".infer.lock");
  ~FolderLock();
  FolderLock(const FolderLock &) = delete;
  FolderLock &operator=(const FolderLock &) = delete;

  // False on a file system without locks: others may be at work in the folder.
  bool is_held() const { return is_held_; }

 private:
  int fd_;
  bool is_held_ = true;
};

// Removes what killed runs have left half-written in a folder: all of it if no other run can be at work there, else
// that of processes of this machine that have ended.
void RemoveLeftovers(const std::string &folder, bool is_locked);

// Returns whether there is a file or folder of this name.
bool Exists(const std::string &path);

// Removes a file if it is there. Throws Error if it is there and cannot be removed.
void RemoveFile(const std::string &path);

// Creates a folder, with its parents. Throws Error if that fails or nothing can be written there.
void MakeFolder(const std::string &path);

// Returns whether two paths lead to one file or folder.
bool IsSame(const std::string &path, const std::string &other);

// Returns folder/name.
std::string Join(const std::string &folder, const std::string &name);

// Returns the lower-case form of a text; only letters of ASCII change.
std::string LowerCase(std::string text);

// Returns the name of the map file of an input file: "a.bin" -> "a_0.bin".
std::string ResultName(const std::string &input_name);

// Returns a number with so many decimals.
std::string Fixed(double value, int decimals);

// Returns a text that reads back as the same number.
std::string Exact(float value);

// Returns text as one field of a CSV line, quoted where it must be (RFC 4180).
std::string CsvField(const std::string &text);

}  // namespace stpm

#endif  // STPM_INC_UTILS_H_
