"""Recorded streams through a policy, offline: what would have been ended, where, and what that would have saved."""

from __future__ import annotations

from streamguard.replay.recording import Recording, recordings
from streamguard.replay.rerun import ObservedTrip, Replayed, replay

__all__ = ["ObservedTrip", "Recording", "Replayed", "recordings", "replay"]
