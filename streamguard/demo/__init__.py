"""The demo: the same job without and with guards, against a simulated model or a real one on this machine."""
