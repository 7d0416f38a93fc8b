#include "inc/watch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "tests/check.h"

namespace stpm {
namespace {

constexpr char kLine[] = "a line\n";

// A watched folder, its journal and the file of the lines.
class Fixture {
 public:
  Fixture() { MakeFolder(folder / "in"); }

  std::string In(const std::string &name) const { return folder / ("in/" + name); }
  WatchSettings Settings(int poll = 0, int settle = 30) const {
    return {folder / "in", std::chrono::milliseconds(poll), std::chrono::milliseconds(settle)};
  }
  std::string JournalPath() const { return folder / "journal"; }
  std::string LinesPath() const { return folder / "lines"; }

  TemporaryFolder folder;
  const Stop stop;
};

// A process that watches, until the next one.
class Watcher {
 public:
  Watcher(const Fixture &fixture, const WatchSettings &settings)
      : journal(fixture.JournalPath()),
        lines(fixture.LinesPath(), true),
        source(settings, &journal, &fixture.stop, [this](const Job &job) { leftovers.push_back(job.file); }) {
    journal.Settle(&lines);
  }

  // Returns the next picture's name, once its line is written.
  std::string Take(bool stays = false) {
    const std::optional<Job> job = source.Next();
    if (!job) return "";
    journal.Report(job->file, job->identity, stays, kLine, &lines, false);
    return job->file;
  }

  Journal journal;
  LineFile lines;
  std::vector<std::string> leftovers;
  WatchSource source;
};

void Rename(const std::string &from, const std::string &to) { CHECK(std::rename(from.c_str(), to.c_str()) == 0); }

void TestWhatIsFinished() {
  Fixture fixture;
  Watcher watcher(fixture, fixture.Settings(0, 60000));
  Put(fixture.In("note.txt"), "x");
  Put(fixture.In("a.png.part"), "x");
  Put(fixture.In(".hidden.png"), "x");
  {
    std::ofstream open(fixture.In("slow.png"));
    open << "x" << std::flush;
    Put(fixture.In("b.png"), "xx");
    CHECK(watcher.Take() == "b.png");  // not the one that is being written
    Rename(fixture.In("a.png.part"), fixture.In("a.png"));
    CHECK(watcher.Take() == "a.png");
    CHECK(::link(fixture.In("note.txt").c_str(), fixture.In("c.png").c_str()) == 0);
    CHECK(watcher.Take() == "c.png");
    CHECK(::symlink(fixture.In("note.txt").c_str(), fixture.In("d.png").c_str()) == 0);
    CHECK(watcher.Take() == "d.png");
  }
  CHECK(watcher.Take() == "slow.png");
  Put(fixture.In("b.png"), "xxx");  // written anew
  CHECK(watcher.Take() == "b.png");
  CHECK(::unlink(fixture.In("b.png").c_str()) == 0);
  Put(fixture.In("b.png"), "xxx");
  CHECK(watcher.Take() == "b.png");
  fixture.stop.Set();
  CHECK(watcher.Take().empty());
}

// What was there before counts once it has not changed for a while; an empty file, too.
void TestSettling() {
  Fixture fixture;
  Put(fixture.In("old.png"), "x");
  std::ofstream open(fixture.In("open.png"));
  open << "x" << std::flush;
  Watcher watcher(fixture, fixture.Settings());
  CHECK(watcher.Take() == "old.png");
  Put(fixture.In("empty.png"), "");
  CHECK(watcher.Take() == "empty.png");
  open.close();
  CHECK(watcher.Take() == "open.png");
}

// Over restarts, with lines that were written, not written, or written in half when the process was killed.
void TestRestarts() {
  Fixture fixture;
  for (const char *const name : {"a.png", "b.png", "c.png\n\xff.png"}) Put(fixture.In(name), "x");
  {
    Watcher watcher(fixture, fixture.Settings());
    for (int i = 0; i < 3; ++i) watcher.Take();
    Put(fixture.In("d.png"), "x");
    CHECK(watcher.Take() == "d.png");
    CHECK(Thrown<Error>([&] { const Journal second(fixture.JournalPath()); }) != "");  // it is in use
  }
  const std::string journal = Get(fixture.JournalPath()), lines = Get(fixture.LinesPath());
  CHECK(lines == std::string(kLine) + kLine + kLine + kLine);
  for (const size_t written : {0U, 3U, 7U}) {  // bytes of the last line
    for (const size_t of_journal : {journal.size(), journal.size() - 5}) {
      if (of_journal < journal.size() && written > 0) continue;  // the entry comes first
      Put(fixture.JournalPath(), journal.substr(0, of_journal));
      Put(fixture.LinesPath(), lines.substr(0, 21 + written));
      Watcher watcher(fixture, fixture.Settings());
      Put(fixture.In("e.png"), "x");
      const std::string next = watcher.Take();
      CHECK(next == (written == 7 ? "e.png" : "d.png") || next == "e.png");
      if (written < 7) CHECK((next == "d.png" ? watcher.Take() == "e.png" : watcher.Take() == "d.png"));
      CHECK(Get(fixture.LinesPath()) == lines + kLine);
      CHECK(::unlink(fixture.In("e.png").c_str()) == 0);
    }
  }
  Put(fixture.JournalPath(), "something else");
  CHECK(Contains(Thrown<Error>([&] { const Journal other(fixture.JournalPath()); }), "is no journal"));
  Put(fixture.JournalPath(), "stpm_inspect journal 1\n1 2 goes 3\n");
  CHECK(Contains(Thrown<Error>([&] { const Journal other(fixture.JournalPath()); }), "is damaged at line 2"));
}

// Lines that were taken away, as when logs are rotated, are not written again.
void TestRotation() {
  Fixture fixture;
  Put(fixture.In("a.png"), "x");
  Put(fixture.In("b.png"), "x");
  {
    Watcher watcher(fixture, fixture.Settings());
    watcher.Take();
    watcher.Take();
  }
  Put(fixture.LinesPath(), "");
  Watcher watcher(fixture, fixture.Settings());
  Put(fixture.In("c.png"), "x");
  CHECK(watcher.Take() == "c.png");
}

// A process that was killed before it moved what it had reported.
void TestLeftovers() {
  Fixture fixture;
  Put(fixture.In("goes.png"), "x");
  {
    Watcher watcher(fixture, fixture.Settings());
    watcher.Take();
    Put(fixture.In("stays.png"), "x");
    watcher.Take(true);
  }
  Watcher watcher(fixture, fixture.Settings());
  Put(fixture.In("new.png"), "x");
  CHECK(watcher.Take() == "new.png" && watcher.leftovers == std::vector<std::string>{"goes.png"});
}

void TestFolderThatVanishes() {
  for (const int poll : {0, 20}) {
    Fixture fixture;
    Watcher watcher(fixture, fixture.Settings(poll));
    Put(fixture.In("a.png"), "x");
    CHECK(watcher.Take() == "a.png");
    Rename(fixture.folder / "in", fixture.folder / "away");
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      Put(fixture.folder / "away/b.png", "x");
      Rename(fixture.folder / "away", fixture.folder / "in");
    });
    CHECK(watcher.Take() == "b.png");  // and not the other one again
    other.join();
    CHECK(std::system(("rm -r '" + fixture.folder.path() + "/in'").c_str()) == 0);
    std::thread maker([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      MakeFolder(fixture.folder / "in");
      Put(fixture.In("c.png"), "x");
    });
    CHECK(watcher.Take() == "c.png");
    maker.join();
  }
}

void TestPolling() {
  Fixture fixture;
  Watcher watcher(fixture, fixture.Settings(20));
  std::ofstream growing(fixture.In("grows.png"));
  for (int i = 0; i < 5; ++i) {
    growing << "x" << std::flush;
    Put(fixture.In(std::to_string(i) + ".png"), "x");
    CHECK(watcher.Take() == std::to_string(i) + ".png");
  }
  growing.close();
  CHECK(watcher.Take() == "grows.png");
  CHECK(::unlink(fixture.In("0.png").c_str()) == 0);
  Put(fixture.In("5.png"), "x");
  CHECK(watcher.Take() == "5.png");
  CHECK(Thrown<Error>([&] {
          const Fixture other;
          CHECK(::rmdir((other.folder / "in").c_str()) == 0);
          Watcher second(other, other.Settings());
        }) != "");
}

}  // namespace
}  // namespace stpm

int main() {
  stpm::TestWhatIsFinished();
  stpm::TestSettling();
  stpm::TestRestarts();
  stpm::TestRotation();
  stpm::TestLeftovers();
  stpm::TestFolderThatVanishes();
  stpm::TestPolling();
  return stpm::failures == 0 ? 0 : 1;
}
