"""A job: what becomes of each row, by what the journal knows, and what is left to do.

In charge of going on from an earlier run and of ending one. `opening` checks and opens its parts; it does not send.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from streamguard.errors import JobError, Problem
from streamguard.jobs.input.input import Input, RowRequest
from streamguard.jobs.input.plan import Entry, Plan
from streamguard.jobs.opening import JobSpec, Parts, open_parts
from streamguard.jobs.problems import Problems
from streamguard.jobs.store.fingerprint import Fingerprint, differences
from streamguard.jobs.store.journal_records import Known, believed
from streamguard.jobs.store.results import poison_line
from streamguard.jobs.store.resume import POISON, Fate, fate
from streamguard.policy.model import Policy

DEAD = ".dead"


class Job:
    """A job that can be started: checked, its output locked, its journal open. Made by `Job.open`."""

    def __init__(self, spec: JobSpec, parts: Parts, *, dry: bool = False) -> None:
        self.spec = spec
        self.policy: Policy = parts.policy
        self.input: Input = parts.input
        self.plan: Plan = parts.input.plan
        self.question = parts.question
        self.output, self.journal = parts.output, parts.journal
        self.name = parts.name
        self.notices = parts.notices
        """What is worth knowing before it starts, in sentences."""
        self.fates: Counter[Fate] = Counter()
        """What becomes of the rows."""
        self.failed_before: Counter[str] = Counter()
        """Rows that failed before and are not asked now, by reason."""
        self.left_out = 0
        """Rows that are not asked in this run because of `limit` or `sample`."""
        self._dry = dry
        self._todo = 0
        self._files = ExitStack()

    @classmethod
    def open(cls, spec: JobSpec, *, dry: bool = False) -> Self:
        """Check and open a job, and decide about every row. Close it, or use it in a `with` block.

        :param dry: only look: nothing is created, changed or locked, and the job cannot be started.
        :raises JobError: every mistake in policy, schema, template, input and output at once; or what was kept from
            before answers another question.
        """
        with ExitStack() as stack:
            job = cls(spec, open_parts(spec, stack, dry=dry), dry=dry)
            job._resume()
            job._files = stack.pop_all()
        return job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, and free the output's lock. Of a job that never began nothing is left."""
        try:
            if not self._dry and self.output.created and self.journal.untouched:
                self.journal.remove()
                self.output.remove()
        finally:
            self._files.close()

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return len(self.plan)

    @property
    def todo(self) -> int:
        """Rows to ask in this run."""
        return self._todo

    @property
    def kept(self) -> int:
        """Rows that had succeeded before and stay."""
        return self.fates["kept"]

    def requests(self) -> Iterator[RowRequest]:
        """The requests of the rows to ask, in order. Those of turn `ALONE_FROM` on are to be asked alone."""
        return self.input.requests()

    def start(self) -> None:
        """A run begins: note what it is about."""
        said = {**msgspec.to_builtins(msgspec.structs.replace(self.spec, budgets=()), str_keys=True)}
        self.journal.say(
            name=self.name,
            question=msgspec.to_builtins(self.question),
            spec={**said, "budgets": [budget.model_dump(mode="json") for budget in self.spec.budgets]},
            folder=str(Path.cwd()),
        )
        self.journal.start(self.rows, self.todo)

    def restore(self) -> None:
        """Put back into the output what stood there of rows that the run did not come to.

        :raises OutputError: the disk is full, or the like. The journal has everything.
        """
        for key, line in self.journal.lines(before=self.journal.run):
            if self.plan.is_chosen(key):
                self.output.append(line)

    def finish(self) -> None:
        """The run is over: the output says what the journal says, and the dead rows stand beside it.

        :raises OutputError: as `restore`.
        """
        self.restore()
        self.output.sync()
        self._bury()

    # Going on

    def _resume(self) -> None:
        """Decide about every row, and make the output say what stays."""
        self._refuse_other_questions()
        rules, crashes = self.spec.rules, self.journal.crashes()
        problems = Problems()
        poisoned: list[Entry] = []
        matched = 0
        for page in self.plan.pages():
            known = self.journal.known(entry.custom_id for entry in page)
            matched += len(known)
            turns: list[tuple[int, int | None]] = []
            for entry in page:
                about = known.get(entry.custom_id)
                deaths = crashes.get(entry.custom_id, 0)
                what, turn = fate(entry.custom_id, about, deaths, rules)
                self.fates[what] += 1
                if what == "dead" and deaths >= rules.max_row_failures and (about is None or about.reason != POISON):
                    poisoned.append(entry)
                    about = msgspec.structs.replace(about or _NOTHING, reason=POISON)
                if what == "kept" and about is not None:
                    self._same_question(entry, about, problems)
                if what in ("failed", "dead"):
                    self.failed_before[(about and about.reason) or "unknown"] += 1
                turns.append((entry.line, turn))
            self.plan.choose(turns)
        problems.raise_any()
        strangers = self.journal.count() - matched
        if strangers:
            self.notices.append(f"{self.spec.out}: {strangers:,} results of rows that are not in the input; they stay")
        if self.spec.sample is not None:
            self.left_out += self.plan.keep_sample(self.spec.sample.of(self.rows), _rank)
        if self.spec.limit is not None:
            self.left_out += self.plan.keep_first(self.spec.limit)
        self._todo = self.plan.chosen
        if self._dry:
            return
        for entry in poisoned:
            self._record_poison(entry)
        if rules.only is not None:
            self.journal.forgive(entry.custom_id for entry, _ in self.plan.todo())
        self.output.mirror(line for key, line in self.journal.lines() if not self.plan.is_chosen(key))
        if self.output.torn:
            self.notices.append(f"{self.spec.out}: a torn last line of {self.output.torn:,} bytes was cut")

    def _refuse_other_questions(self) -> None:
        """:raises JobError: what is kept answers another question than is asked now, as far as all rows share it."""
        said = self.journal.about("question")
        kept = sum(count for (kind, _), count in self.journal.counts().items() if kind == "succeeded")
        if said is None or not kept:
            return
        with believed(str(self.journal.path)):
            before = msgspec.convert(said, Fingerprint)
        changed = list(differences(before, self.question))
        if changed:
            out = self.spec.out
            raise JobError(
                [
                    *(Problem(file=out, problem=f"{one}") for one in changed),
                    Problem(
                        file=out,
                        problem=f"so its {kept:,} results answer another question than this job asks; name another "
                        "--out, or ask for all rows again with --fresh (clocks, caps, retries and budgets may change)",
                    ),
                ]
            )

    def _same_question(self, entry: Entry, known: Known, problems: Problems) -> None:
        """The same for one row."""
        if known.fingerprint is None or known.fingerprint == entry.fingerprint:
            return
        said = json.dumps(entry.custom_id, ensure_ascii=False)
        what = (
            f"the result of {said} answers another request or schema than {self.input.name}:{entry.line} and the "
            "policy now ask for; name another --out, or ask for all rows again with --fresh"
        )
        problems.add(Problem(file=self.spec.out, problem=what))

    def _record_poison(self, entry: Entry) -> None:
        line = poison_line(entry.custom_id, self.spec.rules.max_row_failures, entry.fingerprint)
        self.journal.finish(entry.custom_id, line, type="errored", reason=POISON, fingerprint=entry.fingerprint)

    def _bury(self) -> None:
        """Write the rows that are not asked any more beside the output, as they came in: to be mended and run again."""
        path = Path(self.spec.out + DEAD)
        keys = self.journal.dead(self.spec.rules.max_row_failures)
        entries = [entry for key in keys if (entry := self.plan.entry(key)) is not None]
        if not entries:
            path.unlink(missing_ok=True)
            return
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            for entry in entries:
                file.write(json.dumps(self.input.row(entry).data) + "\n")
        Path(file.name).replace(path)


_NOTHING = Known(type="errored", reason=None, fingerprint=None, failures=0)


def _rank(key: str) -> int:
    """A number by chance, and always the same for a key."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:7], "big")
