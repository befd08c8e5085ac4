"""Mixtures as the trainers people use read them: a format a file, all of one shape (`base.Format`).

Each says what it weighs by, what it needs to know beyond the weights, how the trainer rounds, and how that was
checked; with every file comes what the trainer will really draw (`base.Realised`).
"""

from exchange.formats.base import Blend, Format, InvalidExport, Realised, Source
from exchange.formats.catalogue import FORMATS, Export, export, format_named, write_files
from exchange.formats.plain import apportioned
from exchange.formats.schedule import ScheduleExport, export_schedule

__all__ = [
    "FORMATS",
    "Blend",
    "Export",
    "Format",
    "InvalidExport",
    "Realised",
    "ScheduleExport",
    "Source",
    "apportioned",
    "export",
    "export_schedule",
    "format_named",
    "write_files",
]
