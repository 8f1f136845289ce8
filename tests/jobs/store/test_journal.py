"""The journal: what is committed is there, whatever happens to the process; and files of others are not touched."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys

import pytest

from streamguard.errors import JobError
from streamguard.jobs.store.journal import copied_journal, journal_path, open_journal, read_journal
from streamguard.jobs.store.journal_records import JournalError, Known, Sample, Spent
from tests.data import ROOT


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def opened(tmp_path):
    return open_journal(str(tmp_path / "out.jsonl"), clock=Clock())


def ended(journal, key: str, type_: str = "succeeded", reason: str | None = None, **more) -> None:
    journal.finish(key, f"line of {key}\n".encode(), type=type_, reason=reason, fingerprint="f", **more)


def test_a_row_is_there_once_and_its_owners_alone(tmp_path) -> None:
    """A later result takes the place of an earlier one, and its place in the order."""
    with opened(tmp_path) as journal:
        for key in ("a", "b", "a"):
            ended(journal, key)
        assert list(journal.lines()) == [("b", b"line of b\n"), ("a", b"line of a\n")]
        assert (journal.count(), journal.line("a"), journal.line("z")) == (2, b"line of a\n", None)
        assert journal.known(["a", "z"]) == {"a": Known("succeeded", None, "f", 0)}
    assert stat.S_IMODE(journal_path(str(tmp_path / "out.jsonl")).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.journal"]


def test_failures_of_a_rows_own_are_counted_over_runs(tmp_path) -> None:
    """Others are not, a success forgets them, and so does forgiveness."""
    with opened(tmp_path) as journal:
        counted = []
        for failed in (True, False, True):
            ended(journal, "a", "errored", "json.schema", failed=failed)
            counted.append(journal.known(["a"])["a"].failures)
        assert (counted, journal.dead(2), journal.dead(3)) == ([1, 1, 2], ["a"], [])
        journal.forgive(["a"])
        assert journal.known(["a"])["a"].failures == 0
        ended(journal, "a", "errored", "json.schema", failed=True)
        ended(journal, "a")
        assert journal.known(["a"])["a"].failures == 0
        assert journal.counts() == {("succeeded", None): 1}


def test_what_a_killed_run_had_under_way_is_known(tmp_path) -> None:
    """Rows that were begun and did not end are counted against it; a result, or the row's end in peace, is not."""
    with opened(tmp_path) as journal:
        for _ in range(2):
            journal.start(rows=5, todo=5)
            for key in ("a", "b", "c"):
                journal.begin(key)
            ended(journal, "b", spent=Spent(attempts=1))
            journal.put_back("c")
            assert journal.in_flight() == ["a"]
            assert journal.take_over_crash() == 1
            assert journal.in_flight() == []
        assert journal.crashes() == {"a": 2}
        assert [(run.how, run.lost, run.asked) for run in journal.runs()] == [("killed", 1, 1), ("killed", 1, 1)]
        assert journal.take_over_crash() == 0
        ended(journal, "a", spent=Spent(attempts=1))
        assert journal.crashes() == {}


def test_what_a_run_took_is_summed_up(tmp_path) -> None:
    """Intervals, and how much of it nobody knows; a line that was only taken over costs nothing."""
    with opened(tmp_path) as journal:
        journal.start(rows=9, todo=9)
        ended(journal, "a", spent=Spent(attempts=2, tokens=(5, 7), cost=(100, 200)))
        ended(journal, "b", spent=Spent(attempts=1, tokens=(1, 1), cost=(None, None)))
        ended(journal, "c")
        journal.end("signal", {"rows": 9})
        (run,) = journal.runs()
        assert (run.asked, run.attempts, run.tokens_low, run.tokens_high, run.tokens_unknown) == (2, 3, 6, 8, 0)
        assert (run.cost_low, run.cost_high, run.cost_unknown) == (100, 200, 1)
        assert (run.how, run.summary, run.ended is not None) == ("signal", '{"rows":9}', True)
        ended(journal, "d", spent=Spent(attempts=1, tokens=(1, None), cost=(5, None)))
        (run,) = journal.runs()
        assert (run.tokens_low, run.tokens_high, run.cost_low, run.cost_high) == (7, None, 105, None)


def test_samples_are_thinned_out(tmp_path) -> None:
    """Every other one goes when there are many, of the run under way alone."""
    with opened(tmp_path) as journal:
        for number in range(6):
            journal.sample(Sample(0, float(number), 1, number, 0, 0, 0.0, None))
        journal.thin_samples()
        assert [sample.done for sample in journal.samples()] == [0, 2, 4]
        for number in range(6, 9):
            journal.sample(Sample(0, float(number), 1, number, 0, 0, 0.0, None))
        journal.thin_samples()
        assert [sample.done for sample in journal.samples()] == [0, 4, 7]


def test_what_is_said_of_the_job(tmp_path) -> None:
    """As JSON, and the last word counts."""
    with opened(tmp_path) as journal:
        journal.say(name="n", question={"model": {"a": 1}})
        journal.say(name="m")
        assert (journal.about("name"), journal.about("question"), journal.about("nothing")) == (
            "m",
            {"model": {"a": 1}},
            None,
        )


def test_others_can_look_while_it_is_written(tmp_path) -> None:
    """A reader sees what is committed, changes nothing, and a copy is a journal of its own."""
    out = str(tmp_path / "out.jsonl")
    with opened(tmp_path) as journal:
        ended(journal, "a")
        reader = read_journal(out)
        assert reader is not None
        with reader, pytest.raises(JournalError, match="readonly"):
            assert reader.count() == 1
            reader.say(name="x")
        (tmp_path / "copy").mkdir()
        with copied_journal(out, str(tmp_path / "copy")) as copy:
            ended(copy, "b")
            assert (copy.count(), journal.count()) == (2, 1)
    assert read_journal(str(tmp_path / "none.jsonl")) is None


def test_a_journal_that_was_only_begun_is_none(tmp_path) -> None:
    """A kill between making the file and its tables leaves an empty one, which the next opening completes."""
    out = str(tmp_path / "out.jsonl")
    journal_path(out).touch()
    assert read_journal(out) is None
    with open_journal(out) as journal:
        assert journal.count() == 0


def test_what_a_killed_process_committed_is_read(tmp_path) -> None:
    """Also by somebody who only reads: the log it left is taken in."""
    out = str(tmp_path / "out.jsonl")
    code = (
        "import os, signal, sys\n"
        "from streamguard.jobs.store.journal import open_journal\n"
        "journal = open_journal(sys.argv[1])\n"
        "journal.start(1, 1)\n"
        "journal.finish('a', b'line', type='succeeded', reason=None, fingerprint=None)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, out], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert (tmp_path / "out.jsonl.journal-wal").exists()
    reader = read_journal(out)
    assert reader is not None
    with reader:
        assert (reader.line("a"), reader.runs()[0].ended) == (b"line", None)


def other_database(path, version: int | None = None) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
        if version is not None:
            db.execute(f"PRAGMA application_id = {0x53674A6C}")
            db.execute(f"PRAGMA user_version = {version}")
    db.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("my notes"), "is no journal of a job; name another --out, or move it away"),
        (lambda path: path.write_text("x" * 9999), "is no journal of a job; name another --out, or move it away"),
        (other_database, "is no journal of a job; name another --out, or move it away"),
        (
            lambda path: other_database(path, 7),
            "a journal of format 7, and this version reads format 1; name another --out",
        ),
        (lambda path: path.mkdir(), "is no journal of a job; name another --out, or move it away"),
        (lambda path: path.symlink_to("elsewhere"), "is a symbolic link; a journal is a file of its own"),
    ],
)
def test_files_of_others_are_refused(tmp_path, make, said: str) -> None:
    """Whether they are opened to write or to read, and they stay as they are."""
    out = str(tmp_path / "out.jsonl")
    make(journal_path(out))
    for opening in (open_journal, read_journal):
        if opening is read_journal and not journal_path(out).exists():
            continue
        with pytest.raises(JobError) as caught:
            opening(out)
        assert str(caught.value) == f"{out}.journal: {said}"


def test_a_journal_that_cannot_be_written_says_so(tmp_path) -> None:
    """In one sentence, as an error of ours; the rows that are in it stay."""
    with opened(tmp_path) as journal:
        ended(journal, "a")
        journal._db.execute("PRAGMA query_only = ON")
        with pytest.raises(JournalError, match=r"journal: cannot be written: .*; what is in it is whole, so run again"):
            ended(journal, "b")
        journal._db.execute("PRAGMA query_only = OFF")
        assert journal.count() == 1


def test_the_disk_is_waited_for_beside_the_writer(tmp_path) -> None:
    """`sync` moves the log into the file while somebody reads and writes."""
    with opened(tmp_path) as journal:
        ended(journal, "a")
        size = journal.path.stat().st_size
        journal.sync()
        assert journal.path.stat().st_size > size
        ended(journal, "b")
    reader = read_journal(str(tmp_path / "out.jsonl"))
    assert reader is not None
    with reader:
        assert reader.count() == 2
