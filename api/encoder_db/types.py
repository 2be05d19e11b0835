"""Column types that mean the same on MySQL, MariaDB and SQLite."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON as SqlJson
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

MYSQL = ("mysql", "mariadb")


class Timestamp(TypeDecorator[datetime]):
    """A moment: aware UTC in Python, DATETIME(6) or text of the same width in the database."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time must know its zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Uuid(TypeDecorator[UUID]):
    """Sixteen bytes: version 7 sorts by time, so the index grows at its end."""

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL:
            return dialect.type_descriptor(mysql.BINARY(16))
        return dialect.type_descriptor(LargeBinary(16))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.bytes

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(bytes=bytes(value))


def Id() -> TypeEngine[int]:
    # SQLite counts up by itself only in a column that is exactly INTEGER.
    return (
        BigInteger()
        .with_variant(mysql.BIGINT(unsigned=True), *MYSQL)
        .with_variant(Integer(), "sqlite")
    )


def Count() -> TypeEngine[int]:
    return Integer().with_variant(mysql.INTEGER(unsigned=True), *MYSQL)


def SmallCount() -> TypeEngine[int]:
    return SmallInteger().with_variant(mysql.SMALLINT(unsigned=True), *MYSQL)


def Big() -> TypeEngine[int]:
    return BigInteger().with_variant(mysql.BIGINT(unsigned=True), *MYSQL)


def Float() -> TypeEngine[float]:
    return Double()


def Key(length: int) -> TypeEngine[str]:
    """Text that identifies: compared byte by byte, never by a language's rules."""
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(exact, *MYSQL)


def Exact(length: int) -> TypeEngine[str]:
    """A caller's own name for something: any characters, compared byte by byte."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, *MYSQL)


def Json() -> TypeEngine[Any]:
    return SqlJson(none_as_null=True)


def LongText() -> TypeEngine[str]:
    return SqlText().with_variant(mysql.MEDIUMTEXT(), *MYSQL)


def Digest(length: int) -> TypeEngine[bytes]:
    return LargeBinary(length).with_variant(mysql.BINARY(length), *MYSQL)


def Bytes(length: int) -> TypeEngine[bytes]:
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), *MYSQL)


def Blob() -> TypeEngine[bytes]:
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), *MYSQL)
