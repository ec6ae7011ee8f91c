"""Versions of an export on disk: written aside, then renamed, so that a server never sees half of one."""

import contextlib
import os
import shutil
import tempfile

import tensorflow as tf


def write_version(path, write):
    """Makes `path/1`, or the next free number, whole or not at all.

    Args:
        path: str, the folder of all versions; made if missing.
        write: function of a folder, which it fills.

    Returns:
        str, the path of the version.

    Raises:
        OSError: the path cannot be written; earlier versions stay as they are.
    """
    path = os.fspath(path)
    made = not os.path.exists(path)
    try:
        os.makedirs(path, exist_ok=True)
        # In the same file system, that a rename suffices. TF Serving takes only whole numbers for versions.
        aside = tempfile.mkdtemp(prefix=".writing-", dir=path)
    except OSError as error:
        raise type(error)(error.errno, f"Cannot export to path={path!r}: {error.strerror}") from error
    try:
        write(aside)
        os.chmod(aside, 0o755)
        _flush(aside)
        return _rename_to_next_version(aside, path)
    except tf.errors.OpError as error:  # what TensorFlow's file writers raise: full disk and the like
        raise OSError(f"Cannot export to path={path!r}: {error.message}") from error
    except OSError as error:
        raise type(error)(error.errno, f"Cannot export to path={path!r}: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(aside)
        if made:
            with contextlib.suppress(OSError):  # a version stands in it
                os.rmdir(path)


def _flush(folder):
    """Brings all files to the disk: a rename must not reach it before what it names."""
    for root, _, names in os.walk(folder):
        for name in [os.curdir, *names]:
            handle = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _rename_to_next_version(aside, path):
    while True:
        versions = [int(name) for name in os.listdir(path) if name.isdigit()]
        target = os.path.join(path, str(max(versions, default=0) + 1))
        try:
            os.rename(aside, target)
            return target
        except OSError:
            if not os.path.isdir(target):  # else another export was faster: the number after
                raise
