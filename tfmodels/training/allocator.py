"""Memory that one step frees and the next takes again, kept by the process meanwhile."""

import contextlib
import ctypes
import os
import platform

import tensorflow as tf

# Parameters of glibc's mallopt (malloc.h), and the values that its own rules end at.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1}
_USUAL = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}


@contextlib.contextmanager
def kept_memory():
    """Within it glibc keeps what is freed; after it all goes back to the system.

    Otherwise it gives a tensor of over 32 MB back at once, and the next one has to be mapped and zeroed
    page by page: half of the time of a cast or a softmax of that size on a CPU. With a GPU, another C
    library, or allocator options in the environment, nothing is changed. Where TensorFlow has turned oneDNN
    on, tensors come from a pool of its own, which always keeps what is freed; the rest is glibc's.
    """
    libc = _libc()
    if libc is None:
        yield
        return
    for parameter, value in _KEPT.items():
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def share_freed_memory():
    """Makes the threads that start from now on share one heap, for the rest of the process.

    Threads that receive other workers' gradients would have heaps of their own, which glibc holds to 64 MB
    and gives back at each step, whatever `kept_memory` says: an all-reduce of 120 MB takes half as long
    again. Nothing is changed where `kept_memory` changes nothing.
    """
    libc = _libc()
    if libc is not None:
        libc.mallopt(_ARENA_MAX, 1)


def _libc():
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    preloaded = "LD_PRELOAD" in os.environ
    if platform.libc_ver()[0] != "glibc" or chosen or preloaded or tf.config.list_physical_devices("GPU"):
        return None
    return ctypes.CDLL(None)
