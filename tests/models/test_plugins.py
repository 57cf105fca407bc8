"""Encoders and upsamplers of other packages: found by name, and never in the way of the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scaleport import plugins
from scaleport.errors import PluginError, UsageError
from scaleport.models import ENCODERS
from scaleport.models.base import Encoder
from scaleport.models.encoders.edsr import EDSR
from scaleport.models.registry import Registry

GROUP = "scaleport.test-encoders"

MODULE = """
import sys
from torch import nn
from scaleport.errors import UsageError
from scaleport.models.base import Encoder
from registries import REGISTRY

class Plain(Encoder):
    def __init__(self, width: int = 4):
        super().__init__()
        self.out_channels = width
        self.conv = nn.Conv2d(3, width, 1)

    def forward(self, x):
        return self.conv(x)

class Other(Plain):
    pass
"""


@pytest.fixture
def registry() -> Registry:
    made: Registry = Registry("encoder", Encoder, GROUP)
    made.register("edsr")(EDSR)
    return made


@pytest.fixture
def install(tmp_path: Path, monkeypatch, registry) -> Callable[..., None]:
    """Function that lays out a package as pip would: its name, entry points, text of its module."""
    import types

    helper = types.ModuleType("registries")
    helper.REGISTRY = registry  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "registries", helper)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def add(package: str, points: dict[str, str], text: str = "") -> None:
        module = package.replace("-", "_")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        (tmp_path / f"{module}.py").write_text(MODULE + text)
        made.append(module)
        plugins.claims.cache_clear()

    yield add
    for module in made:
        sys.modules.pop(module, None)
    plugins.claims.cache_clear()


def test_a_class_is_known_under_the_name_of_its_entry_point(install, registry) -> None:
    install("toy-a", {"plain": "toy_a:Plain"})
    assert "toy_a" not in sys.modules
    assert registry.create("plain", {"width": 7}).out_channels == 7
    assert list(registry) == ["edsr", "plain"]
    assert registry.origin("plain") == "toy-a" and registry.origin("edsr") == ""
    assert registry.refused() == {}


def test_a_module_registers_what_it_brings(install, registry) -> None:
    text = "REGISTRY.register('plain')(Plain)\nREGISTRY.register('more')(Other)\n"
    install("toy-b", {"plain": "toy_b"}, text)
    # Only the module knows of the second name; an unknown name makes all plug-ins speak up.
    assert registry.get("more").__name__ == "Other"
    assert registry.options("plain") == {"width": 4}
    assert {registry.origin(name) for name in ("plain", "more")} == {"toy-b"}


def test_nothing_is_imported_for_a_name_of_our_own(install, registry) -> None:
    install("toy-c", {"plain": "toy_c:Plain"})
    assert registry.get("edsr") is EDSR
    assert "toy_c" not in sys.modules


@pytest.mark.parametrize(
    ("value", "text", "said"),
    [
        ("toy_d:Plain", "import no_such_library", "No module named 'no_such_library'"),
        ("toy_d:Plain", "raise RuntimeError('first\\nsecond')", "RuntimeError: first"),
        ("toy_d:Gone", "", "Gone"),
        ("nowhere:Plain", "", "No module named 'nowhere'"),
        ("toy_d", "", "neither a class nor a module that registers the name"),
        ("toy_d:Plain.forward", "", "neither a class nor a module that registers the name"),
        ("toy_d:nn.Linear", "", "Linear is not derived from Encoder"),
        ("toy_d", "REGISTRY.register('edsr')(Plain)", "encoder 'edsr' is already registered"),
    ],
)
def test_a_broken_one_names_its_package_and_leaves_the_others_alone(
    install, registry, value, text, said
) -> None:
    install("toy-d", {"bad": value}, text)
    install("toy-e", {"good": "toy_e:Plain"})
    for _ in range(2):
        with pytest.raises(
            PluginError, match="'bad' of the package toy-d cannot be load"
        ) as caught:
            registry.get("bad")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert registry.get("good").__name__ == "Plain"
    assert registry.get("edsr") is EDSR
    assert list(registry) == ["edsr", "good"]
    assert "bad" not in registry
    assert list(registry.refused()) == ["bad"]


def test_half_a_module_does_not_stay(install, registry) -> None:
    text = "REGISTRY.register('early')(Plain)\nraise ValueError('late')\n"
    install("toy-f", {"early": "toy_f"}, text)
    with pytest.raises(PluginError, match="late"):
        registry.get("early")
    assert "early" not in registry


def test_a_taken_name_stays_taken(install, registry) -> None:
    install("toy-g", {"edsr": "toy_g:Plain"})
    assert registry.get("edsr") is EDSR
    assert "toy_g" not in sys.modules
    assert registry.refused() == {
        "edsr": "encoder 'edsr' of the package toy-g cannot be loaded: "
        "Scaleport has its own of that name"
    }


def test_two_packages_with_one_name(install, registry) -> None:
    install("toy-h", {"plain": "toy_h:Plain"})
    install("toy-i", {"plain": "toy_i:Plain"})
    with pytest.raises(PluginError, match="'plain' is claimed by toy-h and toy-i; uninstall all"):
        registry.get("plain")
    assert list(registry) == ["edsr"]


def test_an_unknown_name_lists_plugins_too(install, registry) -> None:
    install("toy-j", {"plain": "toy_j:Plain"})
    with pytest.raises(UsageError, match="unknown encoder 'plan'; known: edsr, plain"):
        registry.get("plan")


def test_ours_have_their_groups() -> None:
    assert (ENCODERS.group, plugins.ENCODERS) == ("scaleport.encoders",) * 2
