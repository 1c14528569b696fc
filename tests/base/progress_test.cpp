#include "base/progress.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>

#include "base/progress_line.h"

namespace qlora {
namespace {

TEST(ProgressText, SaysHowFarAPhaseIsAndGuessesTheRest) {
  EXPECT_EQ(progress_text("tokenizing", 3, 60, "rows", 2), "tokenizing: 3 of 60 rows (5 %), 0:02");
  EXPECT_EQ(progress_text("tokenizing", 15, 60, "rows", 10),
            "tokenizing: 15 of 60 rows (25 %), 0:10, 0:30 left");
  EXPECT_EQ(progress_text("tokenizing", 60, 60, "rows", 70),
            "tokenizing: 60 of 60 rows (100 %), 1:10");
}

TEST(ProgressText, LeavesOutWhatCannotBeCounted) {
  EXPECT_EQ(progress_text("tokenizing", 4096, 0, "rows", 3), "tokenizing: 4096 rows, 0:03");
  EXPECT_EQ(progress_text("saving", 0, 0, "", 61), "saving: 1:01");
  EXPECT_EQ(progress_text("step 3 of 9", 0, 1, "micro-batches", 5), "step 3 of 9: 0:05");
}

TEST(ProgressText, HoursAreWrittenOut) {
  EXPECT_EQ(clock_text(3 * 3600 + 4 * 60 + 5.4), "3:04:05");
  EXPECT_EQ(clock_text(59.6), "1:00");
}

struct Screen {
  std::string text;
  ProgressLine line;
  explicit Screen(bool rewritten, size_t width = 80)
      : line(rewritten, width, [this](std::string_view part) { text += part; }) {}
};

TEST(ProgressLine, APhaseOfLessThanTwoSecondsIsNeverSeen) {
  for (const bool rewritten : {true, false}) {
    Screen screen(rewritten);
    screen.line.show("reading", 1.9, 100);
    screen.line.take_away();
    EXPECT_EQ(screen.text, "");
  }
}

TEST(ProgressLine, OnATerminalOneLineIsRewrittenAndTakenAway) {
  Screen screen(true);
  screen.line.show("reading: 1", 2, 100);
  screen.line.show("reading: 1", 2.2, 100.2);
  screen.line.show("reading: 2", 2.4, 100.4);
  EXPECT_EQ(screen.text, "\r\x1b[Kreading: 1\r\x1b[Kreading: 2");
  screen.line.take_away();
  screen.line.take_away();
  EXPECT_EQ(screen.text, "\r\x1b[Kreading: 1\r\x1b[Kreading: 2\r\x1b[K");
}

TEST(ProgressLine, OnATerminalItIsShorterThanARow) {
  Screen screen(true, 6);
  screen.line.show("reading", 2, 0);
  EXPECT_EQ(screen.text, "\r\x1b[Kreadi");
}

TEST(ProgressLine, ALongPathIsShortenedInItsMiddleAndTheNumbersStay) {
  const auto shown = [](const std::string& text, size_t width) {
    Screen screen(true, width);
    screen.line.show(text, 2, 0);
    return screen.text.substr(std::string("\r\x1b[K").size());
  };
  EXPECT_EQ(shown("tokenizing /data/2026-11/prompts.jsonl: 12 of 99 rows (12 %), 0:10", 53),
            "tokenizing...ompts.jsonl: 12 of 99 rows (12 %), 0:10");
  EXPECT_EQ(shown("lesen /ä/öüöüöüöüöüöüöüöüöü: 0:10", 25), "lesen /...öüöüöüöü: 0:10");
  EXPECT_EQ(shown("reading 数据/数据数据数据数据数据: 0:10", 25), "reading...数据数据: 0:10");
  EXPECT_EQ(shown("reading a path that is long: 12345678 rows, 0:10", 21), "read... long: 123456");
}

TEST(ProgressLine, AShortPhaseTakesTheLineOfALongOneAway) {
  Screen screen(true);
  screen.line.show("reading", 2, 0);
  screen.line.show("writing", 0.1, 1);
  EXPECT_EQ(screen.text, "\r\x1b[Kreading\r\x1b[K");
}

TEST(ProgressLine, ElsewhereALineStandsAfterEveryTenSecondsWithoutAny) {
  Screen screen(false);
  screen.line.show("reading: 1", 2, 100);
  screen.line.show("reading: 2", 11, 109);
  screen.line.show("reading: 3", 12.1, 110.1);
  EXPECT_EQ(screen.text, "reading: 1\nreading: 3\n");
  screen.line.other_line(119);
  screen.line.show("reading: 4", 22, 121);
  screen.line.show("reading: 5", 31, 129);
  EXPECT_EQ(screen.text, "reading: 1\nreading: 3\nreading: 5\n");
}

TEST(Progress, OfPhasesThatAnExceptionLeavesTheInnermostIsKnown) {
  try {
    const Progress outer("outer");
    const Progress inner("inner");
    throw std::runtime_error("no");
  } catch (const std::runtime_error&) {
    EXPECT_EQ(phase_left_by_exception(), "inner");
  }
  { const Progress next("next"); }
  EXPECT_EQ(phase_left_by_exception(), "");
}

TEST(Stop, APhaseIsLeftBetweenTwoUnitsAndSaysHowFarItWas) {
  std::atomic<bool> stop = false;
  const ObeyStop obey(stop);
  Progress progress("reading", 3, "tensors");
  progress.advance();
  stop = true;
  try {
    progress.advance();
    FAIL() << "went on";
  } catch (const Stopped& stopped) {
    EXPECT_EQ(stopped.to_text(), "reading, 2 of 3 tensors done");
  }
  progress.advance();  // the last one: all is done, and there is nothing to leave
}

TEST(Stop, WorkThatOnlyCountsIsNotLeft) {
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  Progress progress("tokenizing", 0, "rows");
  progress.count(5);
  EXPECT_EQ(progress.to_text(), "tokenizing: 5 rows, 0:00");
  EXPECT_THROW(progress.leave_if_stop_wanted(), Stopped);
}

TEST(Stop, ASentenceSaysWhereTheWorkWasAndThatNothingStaysIfThatIsSo) {
  EXPECT_EQ((Stopped{"reading", 2, 3, "tensors"}).to_sentence(),
            "stopped: reading, 2 of 3 tensors done; nothing was written");
  EXPECT_EQ((Stopped{"with the rows read", 0, 0, "", true}).to_sentence(),
            "stopped: with the rows read");
  EXPECT_EQ(Stopped().to_sentence(), "stopped");
}

TEST(Stop, AFlagIsObeyedAsLongAsItIsAskedTo) {
  const std::atomic<bool> yes = true, no = false;
  EXPECT_FALSE(stop_wanted());
  {
    const ObeyStop obey(yes);
    EXPECT_TRUE(stop_wanted());
    {
      const ObeyStop another(no);
      EXPECT_FALSE(stop_wanted());
    }
    EXPECT_THROW(leave_if_stop_wanted(), Stopped);
  }
  EXPECT_FALSE(stop_wanted());
}

// As a fork may come at any moment, also while the thread that shows holds the lock or is about to
// wait, and the copy of the lock would be held for ever.
TEST(Progress, AChildProcessOpensPhasesWhateverTheThreadsOfItsParentDid) {
  { const Progress before("begun in the parent"); }
  std::promise<void> held, done;
  std::thread holder([&, end = done.get_future()] {
    const auto lock = hold_progress_line();
    held.set_value();
    end.wait();
  });
  held.get_future().wait();
  const pid_t child = fork();
  if (child == 0) {
    constexpr unsigned kSecondsUntilHung = 20;
    alarm(kSecondsUntilHung);
    for (int phase = 0; phase < 3; ++phase) const Progress opened("in the child", 1, "units");
    std::exit(0);  // with the destructors of what is static
  }
  done.set_value();
  holder.join();
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "it hung: status " << status;
}

}  // namespace
}  // namespace qlora
