"""A console that nobody reads holds up nobody, and tells what it dropped."""

import os
import threading

from ai_proxy.telemetry.console import MAX_LINES, Console


def read_until(descriptor: int, mark: bytes) -> bytes:
    found = b""
    while mark not in found:
        found += os.read(descriptor, 65536)
    return found


def test_lines_arrive_in_order_up_to_the_end() -> None:
    reader, writer = os.pipe()
    console = Console(writer, terminal=False)

    for number in range(100):
        console.write(f"{number}\n")
    console.close()

    assert os.read(reader, 65536).decode().split() == [str(number) for number in range(100)]
    os.close(reader)
    os.close(writer)


def test_nobody_waits_for_one_who_does_not_read_and_what_was_dropped_is_told() -> None:
    reader, writer = os.pipe()
    console = Console(writer, terminal=False)

    for _ in range(2 * MAX_LINES):
        console.write("x" * 100 + "\n")
    waiting = read_until(reader, b"x\n" * 1)
    while b"were dropped" not in waiting:
        console.write("after\n")
        waiting += os.read(reader, 65536)

    assert b"log lines were dropped here, because nobody read standard error)\n" in waiting
    os.close(reader)
    console.close()
    os.close(writer)


def test_the_end_does_not_wait_for_one_who_does_not_read() -> None:
    reader, writer = os.pipe()
    console = Console(writer, terminal=False)
    for _ in range(2 * MAX_LINES):
        console.write("x" * 100 + "\n")

    closing = threading.Thread(target=console.close)
    closing.start()
    closing.join(60)

    assert not closing.is_alive()
    os.close(reader)


def test_a_reader_that_goes_away_harms_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    console = Console(writer, terminal=False)

    console.write("nobody reads this\n")
    console.close()

    os.close(writer)
