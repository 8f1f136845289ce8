"""A policy as a caller gives it: a `Policy` made in code, or the name of one.

In charge of holding both to the same rules: what a file is refused for, a policy in code is, too.
"""

from __future__ import annotations

import os
from functools import lru_cache

from streamguard.errors import PolicyError, Problem
from streamguard.files.json_pointer import pointer
from streamguard.policy.checks import check_policy
from streamguard.policy.file import SHIPPED, load_policy
from streamguard.policy.model import Policy


def as_policy(policy: Policy | str | os.PathLike[str]) -> Policy:
    """Return a policy that is given as such, or by name: `streamguard:extraction`, or the path of a file.

    :raises PolicyError: there is none of that name, it cannot be used, or something else was given.
    """
    if isinstance(policy, Policy):
        if problems := _faults(_Same(policy)):
            raise PolicyError(problems)
        return policy
    if isinstance(policy, str) and policy.startswith(SHIPPED):
        return _shipped_policy(policy)
    if isinstance(policy, str | os.PathLike):
        return load_policy(policy)
    raise PolicyError(
        f"policy must be a Policy or the name of one, such as {SHIPPED}extraction or the path of a policy file, "
        f"not {type(policy).__name__}"
    )


class _Same:
    """A policy that was made in code, known by which object it is: to compare all its values would cost more."""

    __slots__ = ("policy",)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.policy is other.policy

    def __hash__(self) -> int:
        return id(self.policy)


@lru_cache(maxsize=128)
def _faults(same: _Same) -> tuple[Problem, ...]:
    """What a file would be refused for, of a policy in code: what no section sees by itself."""
    found = [one for one in check_policy(same.policy) if one.level == "error"]
    return tuple(Problem(pointer=pointer(one.path), problem=one.problem) for one in found)


@lru_cache(maxsize=32)
def _shipped_policy(name: str) -> Policy:
    return load_policy(name)
