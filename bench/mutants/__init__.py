"""Switch off each guard, rule and clean-up in turn, and see whether the matrix notices.

Each module fills the table of the registry. `python -m bench.mutants` runs them.
"""

from bench.mutants import calls, documents, guards, wire
from bench.mutants.registry import MUTANTS, NOTICED_BY

__all__ = ["MUTANTS", "NOTICED_BY", "calls", "documents", "guards", "wire"]
