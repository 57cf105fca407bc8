"""Where the graphs of a model come from: a bundle, or graphs that are not written yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scaleport.bundle.manifest import Graph, Manifest, Tensor
from scaleport.bundle.reader import Bundle
from scaleport.errors import UsageError
from scaleport.runtimes.base import Backend, GraphFile, stored_format


class GraphSource(Protocol):
    """The graphs of one model."""

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        ...

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """Declared inputs and outputs of the stages that a backend finds here, by stage."""
        ...

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """What a backend loads for a stage.

        Raises:
            UsageError: if there is no such graph.
            ArtifactError: if its file is damaged.
        """
        ...

    def checkpoint(self) -> Path:
        """The verified PyTorch checkpoint of the model.

        Raises:
            ArtifactError: if there is none, or it is damaged.
        """
        ...


@dataclass(frozen=True)
class BundleSource:
    """The graphs of an opened bundle."""

    bundle: Bundle

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """Graphs of the bundle in the backend's format, by stage."""
        found = self.bundle.graphs(stored_format(backend), None, precision)
        return {graph.stage: graph for graph in found}

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """The verified file of a graph, or the checkpoint for a backend that runs that."""
        form = backend.graph_format
        if form == "torch":
            graph = self.graphs(backend, precision).get(stage)
            if graph is None:
                raise UsageError(f"this model has no stage {stage!r} in {precision}")
            path = self.bundle.checkpoint()
        else:
            graph = self.bundle.graph(form, stage, precision)
            path = self.bundle.file(graph.path)
        return GraphFile(path, stage, precision, names(graph.inputs), names(graph.outputs))

    def checkpoint(self) -> Path:
        """The bundle's checkpoint."""
        return self.bundle.checkpoint()


@dataclass(frozen=True)
class RevisedSource:
    """The graphs of another source under a manifest that says something else of them.

    For what a model is capable of beyond what it declares, e.g. sizes or a receptive field.
    """

    source: GraphSource
    revised: Manifest

    @property
    def manifest(self) -> Manifest:
        """The manifest in place of the source's own."""
        return self.revised

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """Those of the source."""
        return self.source.graphs(backend, precision)

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """That of the source."""
        return self.source.file(backend, stage, precision)

    def checkpoint(self) -> Path:
        """That of the source."""
        return self.source.checkpoint()


def names(tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Names of declared tensors."""
    return tuple(tensor.name for tensor in tensors)
