"""The oracle: given a script and a policy, what may become of a call. Written apart from the package's own code.

It reads the script's bytes by itself, holds them against the policy as the documentation has it, and imports none of
the guards, the engine and the retry rules. `Expectation(script, policy, request).check(record, error)` says everything
in a call's record that is not allowed; an empty list is a call that is all right.
"""

from __future__ import annotations

from streamguard.testing.oracle.attempt import Attempt
from streamguard.testing.oracle.call import Door, Expectation
from streamguard.testing.oracle.causes import Cause, Moment
from streamguard.testing.oracle.documents import Documents
from streamguard.testing.oracle.race import RacedExpectation

__all__ = ["Attempt", "Cause", "Documents", "Door", "Expectation", "Moment", "RacedExpectation"]
