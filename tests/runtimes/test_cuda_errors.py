"""How errors of CUDA and TensorRT become ours, from a CUDA that only fails."""

from __future__ import annotations

from enum import IntEnum

import pytest

from scaleport.errors import BackendError, OutOfMemoryError
from scaleport.runtimes import cuda
from scaleport.runtimes.engine_library import Library, Messages, plain_message
from scaleport.runtimes.engine_session import failure


class FakeError(IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorIllegalAddress = 700  # noqa: N815


class FakeCuda:
    """Fails as it is told to; runs nothing."""

    cudaError_t = FakeError  # noqa: N815

    def __init__(self, answer: FakeError) -> None:
        self.answer = answer
        self.cleared = 0

    def cudaGetErrorString(self, code: FakeError) -> tuple[FakeError, bytes]:  # noqa: N802
        return FakeError.cudaSuccess, b"text of " + code.name.encode()

    def cudaGetLastError(self) -> tuple[FakeError]:  # noqa: N802
        self.cleared += 1
        return (self.answer,)


def test_cuda_errors_are_mapped() -> None:
    fake = FakeCuda(FakeError.cudaSuccess)
    assert cuda.check(fake, (FakeError.cudaSuccess,), "wait") is None
    assert cuda.check(fake, (FakeError.cudaSuccess, 7), "wait") == 7
    assert cuda.check(fake, (FakeError.cudaSuccess, 7, 8), "wait") == (7, 8)
    assert fake.cleared == 0
    with pytest.raises(
        BackendError, match=r"could not wait: text of cudaErrorIllegalAddress \(error 700"
    ):
        cuda.check(fake, (FakeError.cudaErrorIllegalAddress,), "wait")
    with pytest.raises(OutOfMemoryError, match="ran out of memory trying to wait"):
        cuda.check(fake, (FakeError.cudaErrorMemoryAllocation, None), "wait")
    assert fake.cleared == 2, "TensorRT must not find the error of a call that it did not make"


def messages_of(*entries: tuple[str, str]) -> Messages:
    messages = Messages()
    for severity, text in entries:
        messages.add(severity, text)
    return messages


def test_failures_of_tensorrt_are_mapped() -> None:
    library = Library("tensorrt", None, "10.13.0")
    full = messages_of(("ERROR", "IExecutionContext: Error Code 2: OutOfMemory (Requested size)"))
    assert isinstance(failure(full, "run the graph", library), OutOfMemoryError)
    # Warnings about a memory limit are no failure of memory.
    other = messages_of(
        ("WARNING", "tactic skipped: out of memory"), ("ERROR", "Error Code 3: bad shape")
    )
    error = failure(other, "run the graph", library)
    assert type(error) is BackendError
    assert str(error) == "TensorRT 10.13.0 could not run the graph: bad shape"
    assert str(failure(Messages(), "run", library)).endswith("no reason given")


def test_messages_keep_what_is_telling() -> None:
    no_driver = "Error Code 1: Cuda Runtime (CUDA driver version is insufficient for CUDA)"
    messages = messages_of(
        ("VERBOSE", "chatter"),
        ("INFO", "more chatter"),
        ("WARNING", "importer.cpp:12: watch out"),
        ("WARNING", "importer.cpp:12: watch out"),
        ("ERROR", no_driver),
        (
            "ERROR",
            "IBuilder: Error Code 4: API Usage Error (no profile. In validate at /a/b.cpp:9)",
        ),
    )
    assert messages.warnings == ("watch out",)
    assert messages.first_error == "IBuilder: API Usage Error (no profile.)"
    assert "insufficient" in messages_of(("ERROR", no_driver)).first_error


def test_one_line_drops_line_breaks() -> None:
    assert plain_message("first\n  second\n") == "first second"
