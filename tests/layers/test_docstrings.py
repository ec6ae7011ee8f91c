"""The examples of docstrings print what stands under them."""

import doctest
import importlib
import pkgutil

import pytest

import tfmodels.layers

NEED_A_MODEL = {"record"}  # whose examples are of a user's own
NAMES = sorted(module.name for module in pkgutil.iter_modules(tfmodels.layers.__path__))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEED_A_MODEL])
def test_examples(name):
    module = importlib.import_module(f"tfmodels.layers.{name}")
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert not found.failed
