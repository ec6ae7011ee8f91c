"""Memory that is freed within a fit stays with the process, and goes back after it."""

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import numpy as np, os, sys, threading
from tfmodels.training.allocator import kept_memory, share_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def touch():
    if sys.argv[1:] == ["thread"]:
        thread = threading.Thread(target=lambda: np.ones(2**26, np.uint8))
        thread.start(), thread.join()
    else:
        np.ones(2**26, np.uint8)  # 64 MB, freed at once
if "thread" in sys.argv:
    share_freed_memory()
touch()
before = resident()
with kept_memory():
    touch()
    within = resident()
print(within - before, resident() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told to keep memory"
)
@pytest.mark.parametrize("arguments", [[], ["thread"]])
def test_memory_is_kept_within_and_given_back_after(arguments):
    output = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments], check=True, capture_output=True, text=True
    ).stdout
    within, after = map(int, output.split())
    assert within > 2**25 and after < 2**23
