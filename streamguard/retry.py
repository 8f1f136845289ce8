"""After a trip or a failure: again (when, with what patch) or give up.

Decisions are data. `decide` is a pure function of the policy's rules, what happened so far, the time and a random number
that is passed in; it returns a frozen `Decision` that goes into the outcome, to hooks and onto the screen.
"""

from __future__ import annotations
