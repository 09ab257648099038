"""The examples in docstrings are run: what is documented is tested."""

import doctest
import importlib
import pkgutil

import pytest

import featurestore.views
import train.evaluation

EXAMPLES = {
    # module: the least number of examples, so that none is lost unnoticed
    "featurestore.folds.assign": 3,
    "featurestore.spec.store_spec": 5,
    "featurestore.store": 10,
    "featurestore.views.folds": 5,
    "featurestore.views.labels": 5,
    "featurestore.views.thresholds": 5,
}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def modules() -> list[str]:
    """Return the modules whose examples are run, those without any included."""
    packages = (featurestore.views, train.evaluation)
    names = {
        f"{package.__name__}.{module.name}"
        for package in packages
        for module in pkgutil.iter_modules(package.__path__)
    }
    return sorted(names | set(EXAMPLES))


@pytest.mark.parametrize("name", modules())
def test_the_examples_are_true(name: str):
    result = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert result.failed == 0
    assert result.attempted >= EXAMPLES.get(name, 0)
