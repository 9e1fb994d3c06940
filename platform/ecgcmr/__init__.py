"""ecgcmr teaches the 12-lead ECG what cardiac MRI knows; `docs/architecture.md` shows how a shard becomes a table cell."""

__version__ = "0.1.0"
