"""Mutants of the package: each guard, rule and clean-up switched off, to see whether the tests notice."""

from bench.mutants import billing, checks, engine, grounding, guards, hedging, hints, marked, pace, servers, wire
from bench.mutants.registry import MUTANTS, NOTICED_BY

__all__ = [
    "MUTANTS",
    "NOTICED_BY",
    "billing",
    "checks",
    "engine",
    "grounding",
    "guards",
    "hedging",
    "hints",
    "marked",
    "pace",
    "servers",
    "wire",
]
