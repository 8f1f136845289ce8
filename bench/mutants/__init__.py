"""Mutants of the package: each guard, rule and clean-up switched off, to see whether the tests notice."""

from bench.mutants import engine, guards, wire
from bench.mutants.registry import MUTANTS

__all__ = ["MUTANTS", "engine", "guards", "wire"]
