"""`streamguard calibrate`: limits from what was seen, with what each would have ended and saved."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamguard.cli.options import AllowImports, finish

if TYPE_CHECKING:
    from streamguard.calibration import Fit, Measured
    from streamguard.policy.model import Policy
    from streamguard.replay.recording import Recording

Paths = Annotated[
    list[str],
    typer.Argument(metavar="RECORDING|OUT.jsonl…", help="Recorded streams (files, folders, zips), or outputs of jobs."),
]
PolicyName = Annotated[
    str, typer.Option("--policy", "-p", help="Judges which answers are good; its limits are compared.")
]
FalseAborts = Annotated[
    str, typer.Option("--false-aborts", metavar="SHARE", help="The share of good answers that may be ended: 0.1%.")
]
Headroom = Annotated[float, typer.Option("--headroom", min=1.0, help="What clocks are multiplied by.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides which half of the answers the limits are from.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: the figures as JSON on standard output.")]


def calibrate(
    context: typer.Context,
    paths: Paths,
    policy: PolicyName = "streamguard:extraction",
    false_aborts: FalseAborts = "1%",
    headroom: Headroom = 2.0,
    seed: Seed = 0,
    as_json: AsJson = False,
    allow_imports: AllowImports = False,
) -> None:
    """Find limits from what ran: the smallest ones that end no more good answers than a share.

    They are fitted on one half of the good answers and tried on the other. Nothing is sent.

    Exit codes: 0 limits were found, 1 internal error, 2 usage, policy or a file that cannot be read, 3 there are too
    few answers for that share.
    """

    def body() -> int:
        import msgspec

        from streamguard.calibration import fit
        from streamguard.cli.commands.exits import Exit, complain
        from streamguard.errors import ConfigError, JobError, Problem
        from streamguard.policy.file import read_policy
        from streamguard.terminal import columns, print_result

        rate = _rate(false_aborts)
        found = read_policy(policy, allow_imports=allow_imports)
        problems: list[Problem] = []
        answers: list[Measured] = []
        kept: dict[str, Recording] = {}
        for name in paths:
            try:
                answers += _answers(name, found.policy, kept)
            except (ConfigError, JobError) as error:
                problems += error.problems
        if not answers and not problems:
            raise JobError("no answer in any of them")
        if problems:
            complain(problems)
            return Exit.INPUT
        fitted = fit(answers, rate, headroom=headroom, seed=seed)
        saved = _saved(fitted, kept) if fitted.knobs and kept else {}
        if as_json:
            import json

            print_result(json.dumps({**msgspec.to_builtins(fitted), "saved_tokens": saved}, indent=2) + "\n")
        else:
            total = sum(one.tokens for one in answers if one.name in kept)
            text = _text(fitted, answers, found.policy, saved, total, columns(sys.stdout))
            print_result("\n".join(text) + "\n")
        return Exit.OK if fitted.knobs else Exit.FAILED

    finish(context, body)


def _rate(text: str) -> float:
    from streamguard.errors import JobError

    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text.strip())
    share = 0.0 if found is None else float(found[1]) / 100
    if not 0 < share < 1:
        raise JobError(f"--false-aborts must be a share of the good answers such as 0.1% or 1%, got {text!r}")
    return share


def _answers(name: str, policy: Policy, kept: dict[str, Recording]) -> Iterator[Measured]:
    """Every answer under a name of the command line; recordings are kept, to be replayed."""
    from streamguard.calibration import measure
    from streamguard.calibration.results import of_line
    from streamguard.errors import JobError, Problem
    from streamguard.replay import recordings

    if Path(name).suffix == ".jsonl":
        try:
            with Path(name).open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield from of_line(line)
                    except ValueError as error:
                        raise JobError(Problem(file=name, line=number, problem=str(error))) from error
        except OSError as error:
            raise JobError(Problem(file=name, problem=f"cannot be read: {error.strerror or error}")) from error
        return
    for recording in recordings([name]):
        measured = measure(recording, policy)
        if not measured.good:
            kept[measured.name] = recording
        yield measured


def _saved(fitted: Fit, kept: Mapping[str, Recording]) -> dict[str, int]:
    """Output tokens of bad answers that each limit would have saved by itself, and all of them together."""
    from streamguard.replay import replay

    nothing = _lenient()
    saved: dict[str, int] = {}
    for name, limits in (*((one.knob, [one]) for one in fitted.knobs), ("all", list(fitted.knobs))):
        policy = _with(nothing, {one.knob: one.value for one in limits})
        saved[name] = sum(replay(recording, policy).tokens_after for recording in kept.values())
    return saved


def _lenient() -> Policy:
    """A policy that ends nothing."""
    from streamguard.calibration.measuring import without_limits
    from streamguard.policy.model import Policy

    return without_limits(Policy())


def _with(policy: Policy, limits: Mapping[str, float]) -> Policy:
    from streamguard.guards.caps import Caps
    from streamguard.guards.repetition import Repetition

    clocks = {name.partition(".")[2]: value for name, value in limits.items() if name.startswith("timeouts.")}
    update: dict[str, Any] = {"timeouts": policy.timeouts.model_copy(update=clocks)}
    if "caps.characters" in limits:
        update["caps"] = Caps(characters=int(limits["caps.characters"]))
    loops = {name.partition(".")[2]: int(value) for name, value in limits.items() if name.startswith("repetition.")}
    if loops:
        off: dict[str, Any] = {"max_whitespace": None, "max_period": None}
        if "min_repeats" in loops:
            off["max_period"] = Repetition().max_period
        update["repetition"] = Repetition(**{**off, **loops})
    return policy.model_copy(update=update)


def _text(
    fitted: Fit,
    answers: Sequence[Measured],
    policy: Policy,
    saved: Mapping[str, int],
    total: int,
    width: int | None,
) -> Iterator[str]:
    """The text for people.

    :param saved: tokens that limits would have saved; empty where no stream of a bad answer is there to tell.
    :param total: tokens of the bad answers that have streams.
    """
    from streamguard.terminal import aligned

    bad = Counter(one.reason for one in answers if not one.good)
    listed = "".join(f", {reason} {count:,}" for reason, count in bad.most_common())
    rows = [
        ("answers", f"{len(answers):,}: {fitted.fitted + fitted.checked:,} good, {fitted.bad:,} bad{listed}"),
        ("fitted on", f"{fitted.fitted:,} good answers, checked on {fitted.checked:,} others"),
    ]
    if not fitted.knobs:
        why = f"{fitted.fitted:,} good answers support no share below {fitted.supported:.2%} (95 % sure); for "
        why += f"{fitted.rate:.2%} one limit needs {fitted.needed:,} good answers, all of them {fitted.needed_all:,}"
        rows.append(("too few", why))
        yield aligned(rows, width)
        return
    rows.append(("asked", f"at most {fitted.rate:.2%} of the good answers ended, by all limits together, 95 % sure"))
    rows.append(("checked", f"{fitted.ended_checked:,} of {fitted.checked:,} good answers ended by any"))
    yield aligned(rows, width)
    yield ""
    for one in fitted.knobs:
        now = _now(policy, one.knob)
        ended = f"would have ended {one.ended_checked:,} of {fitted.checked:,} good answers"
        gain = (
            ""
            if one.knob not in saved or one.knob == "max_tokens"
            else f", saves {saved[one.knob]:,} of {total:,} tokens of bad ones"
        )
        yield f"{one.knob}: {_number(one.value)}    # was {now}; {ended}{gain}"
    if saved:
        yield f"# all together save {saved['all']:,} of {total:,} tokens of bad answers"
    if fitted.unserved:
        yield f"# too few answers for: {', '.join(fitted.unserved)} (all limits need {fitted.needed_all:,})"


def _now(policy: Policy, knob: str) -> str:
    section, _, name = knob.partition(".")
    if not name:
        return "the request's own"
    held = getattr(policy, section)
    value = None if held is None else getattr(held, name)
    return "off" if value is None else _number(value)


def _number(value: float) -> str:
    return f"{value:g}" if value != int(value) else f"{int(value):,}".replace(",", "")
