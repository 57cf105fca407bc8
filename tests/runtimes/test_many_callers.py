"""One upscaler and many callers: threads, processes, and other upscalers of the same checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from scaleport.errors import BackendError
from scaleport.runtimes.base import SessionOptions
from scaleport.runtimes.pool import Pool
from scaleport.runtimes.upscaler import load

WAYS = [("openvino", 1), ("openvino", 0), ("onnxruntime", 0), ("torch", 0)]
SCALES = (2.0, 1.3, 2.7, (2.0, 3.5), 3.0, 1.5, 4.0, 2.2)


def pictures():
    rng = np.random.default_rng(0)
    sizes = [(9 + 5 * i, 31 - 2 * i) for i in range(len(SCALES))]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize(("backend", "threads"), WAYS)
@pytest.mark.parametrize("network", ["liif", "igconv"])
def test_eight_threads_get_their_own_pictures(tiny_bundle, network, backend, threads):
    requests = list(zip(pictures(), SCALES, strict=True))
    with load(tiny_bundle(network), backend, threads=threads) as up:
        alone = [up(image, scale) for image, scale in requests]
        ready = threading.Barrier(len(requests))

        def caller(number):
            image, scale = requests[number]
            ready.wait()
            return [up(image, scale) for _ in range(20)]

        with ThreadPoolExecutor(len(requests)) as pool:
            found = list(pool.map(caller, range(len(requests))))
    right = sum(
        np.array_equal(one, want) for want, many in zip(alone, found, strict=True) for one in many
    )
    assert right == 160


def child(up, image, expected, answers):
    try:
        found = up(image, 2.7)
        # Pixels may differ by a rounding: a forked process may have fewer threads.
        answers.put(int(np.abs(found.astype(int) - expected.astype(int)).max()))
    except BackendError as error:
        answers.put(str(error))


def in_forked_process(*arguments):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(*arguments, answers), daemon=True)
    process.start()
    try:
        return answers.get(timeout=300)
    finally:
        process.kill()
        process.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(("backend", "threads"), WAYS)
def test_a_forked_process_loads_its_own_graphs_or_says_why_not(tiny_bundle, backend, threads):
    image = pictures()[3]
    up = load(tiny_bundle("liif"), backend, threads=threads)
    expected = up(image, 2.7)
    answer = in_forked_process(up, image, expected)
    if backend == "openvino":
        assert "forked from one that has used it; start processes with" in answer
    else:
        assert answer <= 1
    np.testing.assert_array_equal(up(image, 2.7), expected)


FORK_FIRST = """
import os, sys
import numpy as np
from scaleport.runtimes.upscaler import load

image = np.zeros((9, 9, 3), np.uint8)
child = os.fork()
up = load(sys.argv[1], "openvino", "fp32")
assert up(image, 2.0).shape == (18, 18, 3)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_openvino_runs_where_it_is_first_used_after_the_fork(tiny_bundle):
    command = [sys.executable, "-c", FORK_FIRST, str(tiny_bundle("igconv"))]
    subprocess.run(command, check=True, timeout=300)


@pytest.mark.parametrize(("backend", "threads"), WAYS)
def test_a_threaded_server_answers_each_request_with_its_picture(tiny_bundle, backend, threads):
    up = load(tiny_bundle("igconv"), backend, threads=threads)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            height, width = (int(n) for n in self.headers["Size"].split("x"))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            image = np.frombuffer(body, np.uint8).reshape(height, width, 3)
            data = up(image, float(self.headers["Scale"])).tobytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # its own 5 would turn some of the callers away

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    images, scales = pictures(), (2.0, 2.7, 3.0)
    wanted = [up(images[i % 8], scales[i % 3]).tobytes() for i in range(24)]

    def ask(number):
        image = images[number % 24 % 8]
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_address[1]}/",
            image.tobytes(),
            {"Size": f"{image.shape[0]}x{image.shape[1]}", "Scale": str(scales[number % 24 % 3])},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read() == wanted[number % 24]

    try:
        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(ask, range(96))) == 96
    finally:
        server.shutdown()
        server.server_close()
        up.close()


def test_upscalers_of_one_checkpoint_do_not_touch_each_other(tiny_bundle):
    bundle, image = tiny_bundle("liif"), pictures()[4]
    first = load(bundle, "torch", "fp32")
    expected = first(image, 2.7)
    lowered = load(bundle, "torch", "fp32", options=SessionOptions(inference_precision="bf16"))
    assert (lowered(image, 2.7) != expected).any()
    np.testing.assert_array_equal(first(image, 2.7), expected)
    lowered.close()
    np.testing.assert_array_equal(first(image, 2.7), expected)
    again = load(bundle, "torch", "fp32")
    first.close()
    np.testing.assert_array_equal(again(image, 2.7), expected)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_what_is_closed_says_so(tiny_bundle, backend):
    up = load(tiny_bundle("liif"), backend, "fp32")
    view = up.open(pictures()[0])
    view.render(2.0, region=(0, 0, 4, 4))
    session = up.stages.session("encode")
    up.close()
    up.close()
    with pytest.raises(BackendError, match="closed"):
        up(pictures()[0], 2.0)
    with pytest.raises(BackendError, match="closed"):
        view.render(2.0)
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})


def test_a_pool_makes_what_is_needed_and_no_more():
    made = []
    pool = Pool(lambda: made.append(1) or len(made), most=2)
    with pool.borrowed() as first, pool.borrowed() as second:
        assert {first, second} == {1, 2}
        waiting = threading.Thread(target=lambda: pool._give(pool._take()))
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive(), "a third caller has to wait"
    waiting.join(10)
    assert not waiting.is_alive()
    assert len(made) == 2
    assert sorted(pool.close()) == [1, 2]
    with pytest.raises(BackendError, match="closed"), pool.borrowed():
        pass


def test_a_pool_whose_maker_fails_can_be_asked_again():
    tries = iter([BackendError("no memory"), "request"])

    def make():
        item = next(tries)
        if isinstance(item, Exception):
            raise item
        return item

    pool = Pool(make, most=1)
    with pytest.raises(BackendError, match="no memory"), pool.borrowed():
        pass
    with pool.borrowed() as item:
        assert item == "request"
