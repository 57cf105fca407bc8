"""Importers: weights in other projects' files, as networks of ours."""

from scaleport.models.importers.pth import import_pth

__all__ = ["import_pth"]
