"""TensorBoard's event files: TFRecord frames of protocol buffers, of which only scalars are read.

A frame is a length, a checksum of it, the record and a checksum of that (CRC-32C, masked); a file that is still being
written ends in the middle of one, and what is before it counts, as in TensorBoard's own reader.
"""

import struct
from collections.abc import Iterator

from exchange.results.base import InvalidResults, Measurement, Reader, ResultFile

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_FLOAT, _DOUBLE = 1, 2


def _table() -> tuple[int, ...]:
    values = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        values.append(value)
    return tuple(values)


_TABLE = _table()


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C of a record."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _records(file: ResultFile) -> Iterator[bytes]:
    data, at = file.data, 0
    while at + 12 <= len(data):
        length, checked = struct.unpack_from("<QI", data, at)
        if masked_crc(data[at : at + 8]) != checked:
            raise InvalidResults(
                f"{file.path}: no event file, or a damaged one, at byte {at}", field=str(file.path)
            )
        start = at + 12
        if start + length + 4 > len(data):
            return
        record = data[start : start + length]
        if masked_crc(record) != struct.unpack_from("<I", data, start + length)[0]:
            raise InvalidResults(f"{file.path}: the record at byte {at} is damaged", field=str(file.path))
        yield record
        at = start + length + 4


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: a whole number, or the bytes of all else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}[kind]
        if at + length > len(data):
            raise IndexError
        yield key >> 3, data[at : at + length]
        at += length


def _scalars(record: bytes) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of an event (tensorflow/core/util/event.proto)."""
    step, summaries = 0, []
    for number, value in _fields(record):
        if number == 2 and isinstance(value, int):
            step = value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in _fields(summary):
            if number == 1 and isinstance(value, bytes) and (named := _value(value)) is not None:
                yield named[0], step, named[1]


def _value(message: bytes) -> tuple[str, float] | None:
    """Tag and scalar of a `Summary.Value`; None for an image, a histogram or text."""
    tag, scalar = "", None
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8", "replace")
        elif number == 2 and isinstance(value, bytes):
            (scalar,) = struct.unpack("<f", value)
        elif number == 8 and isinstance(value, bytes):
            scalar = _tensor(value)
    return None if scalar is None else (tag, scalar)


def _tensor(message: bytes) -> float | None:
    """The one number of a `TensorProto` of floats or doubles; None for anything else."""
    kind, found = 0, []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number in (4, 5, 6) and isinstance(value, bytes):
            found.append(value)
    size = {_FLOAT: 4, _DOUBLE: 8}.get(kind)
    content = b"".join(found)
    if size is None or len(content) != size:
        return None
    return struct.unpack("<f" if kind == _FLOAT else "<d", content)[0]


def _read(file: ResultFile) -> Iterator[Measurement]:
    try:
        for record in _records(file):
            for tag, step, value in _scalars(record):
                yield Measurement(None, tag, value, step)
    except (IndexError, KeyError, struct.error) as error:
        raise InvalidResults(f"{file.path}: an event that cannot be read", field=str(file.path)) from error


TENSORBOARD = Reader(
    "tensorboard", "TensorBoard 2.21 event files", lambda file: ".tfevents." in file.path.name, _read
)
