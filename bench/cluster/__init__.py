"""A cluster under faults, from one seed: several workers, one row journal, one ledger, and everything that goes wrong.

The real `Work`, `Claims`, `MemoryJournal`, `ReservationQueue`, `Ledger` and `MemoryStore` run in virtual time on one
thread; the network between them, the processes and the provider are simulated. Each decision comes from the seed, so a
history that fails is played again by its number.
"""
