"""The scripts of ``schema/``, in order: what makes a store of version 1, and what makes of each version the next."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files


@lru_cache
def schema_steps() -> tuple[str, ...]:
    """The text of ``0001.sql``, ``0002.sql`` and so on; their number is the newest version."""
    scripts = sorted(
        (entry for entry in files(__package__).joinpath("schema").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    for number, script in enumerate(scripts, 1):
        if script.name != f"{number:04}.sql":
            raise AssertionError(f"{script.name} is not version {number}")
    return tuple(script.read_text(encoding="utf-8") for script in scripts)
