"""The bar says one time, and which."""

from __future__ import annotations

from rich.progress import Progress

from scaleport.cli.bar import OneTime


def test_time_passed_while_the_length_is_not_known_and_time_left_once_it_is():
    now = [100.0]
    with Progress(get_time=lambda: now[0], disable=True) as progress:
        number = progress.add_task("", total=None)
        task = progress.tasks[number]
        now[0] += 65
        assert OneTime().render(task).plain == "0:01:05 passed"
        for done in range(1, 6):
            now[0] += 2
            progress.update(number, completed=done, total=10)
        assert OneTime().render(task).plain == "0:00:10 left"
        progress.update(number, completed=10)
        assert OneTime().render(task).plain.endswith(" passed")
