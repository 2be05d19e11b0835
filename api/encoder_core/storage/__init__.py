"""Where sources come from and outputs go to: one connector a kind, found in one table."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, cast

from encoder_core.specs import Destination, Source
from encoder_core.storage.base import (
    Access,
    DestinationConnector,
    PartsConnector,
    SourceConnector,
)

# Modules by name: a job that fetches by http must not pay for importing boto3.
SOURCES: Final = {
    "s3": ("encoder_core.storage.s3", "S3SourceConnector"),
    "http": ("encoder_core.storage.http", "HttpSourceConnector"),
    "https": ("encoder_core.storage.http", "HttpSourceConnector"),
    "ftp": ("encoder_core.storage.ftp", "FtpSourceConnector"),
    "inline": ("encoder_core.storage.files", "InlineSourceConnector"),
    "file": ("encoder_core.storage.files", "FileSourceConnector"),
}
DESTINATIONS: Final = {
    "s3": ("encoder_core.storage.s3", "S3DestinationConnector"),
    "http": ("encoder_core.storage.http", "HttpDestinationConnector"),
    "https": ("encoder_core.storage.http", "HttpDestinationConnector"),
    "ftp": ("encoder_core.storage.ftp", "FtpDestinationConnector"),
    "file": ("encoder_core.storage.files", "FileDestinationConnector"),
}

TAKE_PARTS: Final = frozenset({"s3"})
"""Kinds of destinations whose connector is a PartsConnector."""


def open_source(source: Source, access: Access) -> SourceConnector:
    """The connector of a source. Contacts nobody yet."""
    connector: SourceConnector = _load(*SOURCES[source.kind])(source, access)
    return connector


def open_destination(destination: Destination, access: Access) -> DestinationConnector:
    """The connector of a destination. Contacts nobody yet."""
    connector: DestinationConnector = _load(*DESTINATIONS[destination.kind])(destination, access)
    return connector


def open_in_parts(destination: Destination, access: Access) -> PartsConnector:
    """The connector of a destination whose kind takes parts. Contacts nobody yet."""
    return cast("PartsConnector", open_destination(destination, access))


def _load(module: str, name: str) -> Any:
    return getattr(import_module(module), name)
