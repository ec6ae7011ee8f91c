"""Arrays and a JSON record in one file, which is there whole or not at all.

The file is a safetensors file: no code runs when it is read. Keras's own formats keep no checksum, so a
flipped bit there is silent.
"""

import contextlib
import json
import os
import zlib

import keras
import ml_dtypes
import numpy as np

_CODES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
_DTYPES = {code: np.dtype(getattr(ml_dtypes, name, name)) for name, code in _CODES.items()}
_NO_CHECKSUM = b'"crc32":"00000000"'
_CHUNK = 1 << 24


class DamagedFileError(ValueError):
    """A file that is cut, changed, or no state file."""


def can_hold(dtype):
    """Whether a file can have arrays of a NumPy dtype, bfloat16 among them."""
    return dtype.name in _CODES


def write_state(path, arrays, record):
    """Writes a file aside, and renames it once it is on the disk.

    Args:
        path: str.
        arrays: dict of name -> variable or NumPy array. They are copied one at a time, so that a model
            does not stand in memory twice.
        record: what JSON can hold.

    Raises:
        OSError: the file cannot be written, such as on a full disk; what was there is still there.
    """
    aside = os.path.join(os.path.dirname(path), f".writing-{os.path.basename(path)}")
    try:
        with open(aside, "wb") as file:
            _write(file, arrays, record)
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        if isinstance(error, OSError):
            raise type(error)(error.errno, f"cannot write {path!r}: {error.strerror or error}") from error
        raise
    _sync_folder(os.path.dirname(path))


def _write(file, arrays, record):
    header = _header(arrays, record)
    checksum = zlib.crc32(header)
    file.write(header)
    for array in arrays.values():
        content = np.ascontiguousarray(keras.ops.convert_to_numpy(array)).reshape(-1).view(np.uint8)
        checksum = zlib.crc32(content, checksum)
        file.write(content)
    file.seek(header.index(_NO_CHECKSUM))
    file.write(_NO_CHECKSUM.replace(b"00000000", b"%08x" % checksum))
    file.flush()
    os.fsync(file.fileno())


def read_state(path):
    """Opens a file and checks all of it.

    Returns:
        A tuple of the record and a dict of name -> function that reads the array.

    Raises:
        DamagedFileError: it is cut or changed, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(8)
            length = int.from_bytes(header, "little")
            if not 0 < length < os.path.getsize(path):
                raise ValueError("it does not begin as a safetensors file")
            header += file.read(length)
            fields = json.loads(header[8:])
            metadata = fields.pop("__metadata__")
            stated = int(metadata["crc32"], 16)
            found = zlib.crc32(header.replace(b'"crc32":"%08x"' % stated, _NO_CHECKSUM, 1))
            while chunk := file.read(_CHUNK):
                found = zlib.crc32(chunk, found)
        if found != stated:
            raise ValueError("its checksum does not match")
        record = json.loads(metadata["record"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    return record, {name: _reader(path, len(header), field) for name, field in fields.items()}


def _header(arrays, record):
    """The file up to the first number; the checksum is filled in later."""
    fields = {"__metadata__": {"crc32": "00000000", "record": json.dumps(record)}}
    offset = 0
    for name, array in arrays.items():
        dtype, shape = keras.backend.standardize_dtype(array.dtype), tuple(array.shape)
        code = _CODES[dtype]
        end = offset + int(np.prod(shape, dtype=np.int64)) * _DTYPES[code].itemsize
        fields[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for aligned numbers
    return len(text).to_bytes(8, "little") + text


def _reader(path, start, field):
    def read():
        begin, end = field["data_offsets"]
        with open(path, "rb") as file:
            file.seek(start + begin)
            content = bytearray(file.read(end - begin))
        return np.frombuffer(content, _DTYPES[field["dtype"]]).reshape(field["shape"])

    return read


def _sync_folder(folder):
    """Puts the new name on the disk too, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder or ".", os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
