from loguru import logger

from ai_proxy.platform.listeners import Listeners


def test_every_listener_is_told_in_the_order_they_were_added() -> None:
    listeners, told = Listeners[str]("tests"), list[str]()
    listeners.add(lambda fact: told.append(f"first {fact}"))
    listeners.add(lambda fact: told.append(f"second {fact}"))

    listeners.publish("fact")

    assert told == ["first fact", "second fact"]


def test_a_listener_that_raises_is_logged_and_the_others_are_still_told() -> None:
    listeners, told, logged = Listeners[str]("tests"), list[str](), list[str]()
    sink = logger.add(lambda message: logged.append(str(message)), format="{message}")

    def broken(_: str) -> None:
        raise ValueError("out of luck")

    listeners.add(broken)
    listeners.add(told.append)
    listeners.publish("fact")

    logger.remove(sink)
    assert told == ["fact"]
    assert "a listener of tests failed" in logged[0]
    assert "out of luck" in logged[0]


def test_a_listener_that_left_is_told_nothing() -> None:
    listeners, told = Listeners[str]("tests"), list[str]()
    leave = listeners.add(told.append)

    leave()
    listeners.publish("fact")

    assert told == []


def test_a_listener_may_leave_while_it_is_told() -> None:
    listeners, told = Listeners[str]("tests"), list[str]()

    def once(fact: str) -> None:
        told.append(fact)
        leave()

    leave = listeners.add(once)
    listeners.add(told.append)
    listeners.publish("fact")

    assert told == ["fact", "fact"]
