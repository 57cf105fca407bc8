"""The parity matrix as a pytest plug-in: a fixture with one value per case.

``pytest --scaleport-bundle photo.bundle`` runs every test that takes ``scaleport_case`` once for
each case of the bundle. Nothing of Scaleport is imported unless such a test is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scaleport.testing import ParityCase, ParitySuite

FIXTURE = "scaleport_case"
_SUITES: pytest.StashKey[dict[str, ParitySuite]] = pytest.StashKey()
_ABSENT = "no bundle to compare: give --scaleport-bundle PATH"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("scaleport", "parity of Scaleport bundles")
    group.addoption(
        "--scaleport-bundle",
        action="append",
        default=[],
        metavar="PATH",
        help="a bundle whose graphs are compared with PyTorch; may be repeated",
    )
    group.addoption(
        "--scaleport-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="a backend to run, which must be usable; all that can run here if left out, and "
        "'own' for the cases of an implementation of your own",
    )
    group.addoption(
        "--scaleport-precision",
        action="append",
        default=[],
        metavar="NAME",
        help="fp32 or fp16; those that the bundle has if left out",
    )
    group.addoption(
        "--scaleport-full",
        action="store_true",
        help="all combinations of shapes and scales, not each of them once",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes the fixture once per case."""
    if FIXTURE not in metafunc.fixturenames:
        return
    bundles = metafunc.config.getoption("--scaleport-bundle")
    if not bundles:
        absent = pytest.param(None, id="no bundle", marks=pytest.mark.skip(reason=_ABSENT))
        metafunc.parametrize(FIXTURE, [absent])
        return
    from scaleport.errors import ScaleportError

    try:
        cases = [case for bundle in bundles for case in _cases(metafunc.config, bundle)]
    except ScaleportError as error:
        raise pytest.UsageError(str(error)) from error
    # Names of bundles only where there are several: a name is to be typed again with -k.
    names = [f"{c.suite.bundle.path.name}-{c}" if len(bundles) > 1 else str(c) for c in cases]
    metafunc.parametrize(FIXTURE, cases, ids=names)


def _cases(config: pytest.Config, bundle: str) -> tuple[ParityCase, ...]:
    from scaleport.testing import OWN, ParitySuite

    suites: dict[str, ParitySuite] = config.stash.setdefault(_SUITES, {})
    if bundle not in suites:
        full = config.getoption("--scaleport-full")
        suites[bundle] = ParitySuite(bundle, "full" if full else "quick")
    suite = suites[bundle]
    backends = config.getoption("--scaleport-backend") or None
    precisions = config.getoption("--scaleport-precision") or None
    if backends == [OWN]:
        return tuple(c for p in precisions or ["fp32"] for c in suite.own_cases(p))
    return suite.cases(backends, precisions)
