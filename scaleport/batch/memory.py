"""The tile with which a run stays within a limit of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scaleport.batch.plan import Job
from scaleport.batch.work import Request
from scaleport.errors import ScaleportError
from scaleport.imaging.reading import open_picture
from scaleport.runtimes.budget import Task, fitting_policy
from scaleport.runtimes.file import BITS
from scaleport.runtimes.scales import checked_grid, fitted
from scaleport.runtimes.upscaler import Upscaler


def fit_memory(
    upscaler: Upscaler, jobs: Sequence[Job], request: Request, limit: int, most: int
) -> None:
    """Choose the upscaler's tile so that a run of these jobs stays within a limit.

    Args:
        upscaler: model and backend; the tile of its policy becomes smaller if need be.
        jobs: everything that will be upscaled; unreadable files are ignored.
        request: scale and format.
        limit: bytes of resident memory of this process.
        most: pictures of several that are in memory at once.

    Raises:
        OutOfMemoryError: if even the smallest tile does not fit.
        BackendError: if memory cannot be measured on this system.
    """
    tasks = []
    for job in jobs:
        try:
            picture = open_picture(job.source)
            size = fitted(request.size, picture.shape)
            grid = checked_grid(upscaler.manifest, *picture.shape, request.scale, size)
        except ScaleportError:
            continue  # the run reports it
        layout = picture.layout
        if request.bits:
            layout = replace(layout, dtype=np.dtype(BITS[request.bits]))
        tasks.append(Task(grid, layout))
    held = 1 if len(jobs) == 1 else most
    upscaler.policy = fitting_policy(upscaler, tasks, limit, held)
