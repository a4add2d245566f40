"""What is done to the house: drawn beforehand from a seed, so that the same seed does the same again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests.e2e.chaos.house import CONTAINERS, GUEST, SERVICES, House


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do.

    Attributes:
        name: Of the kind, below.
        service: Whom it is done to, where that matters.
        chance: Between 0 and 1, where there is something left to choose.
        rest: Seconds to wait afterwards.
    """

    name: str
    service: str
    chance: float
    rest: float

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')} ({self.service}, {self.chance:.2f})"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of operation.

    Attributes:
        do: Does it; says what came of it.
        weight: How often it is drawn, beside the others.
        services: To whom it is done.
        undone_by: Name of the kind that undoes it; done again only after that.
        within: Operations after which it is undone at the latest.
    """

    do: Callable[[House, Operation], object]
    weight: float
    services: tuple[str, ...] = SERVICES
    undone_by: str = ""
    within: int = 0


def start(house: House, operation: Operation) -> object:
    return house.order(operation.service, "start", wait=_wait(operation))


def stop(house: House, operation: Operation) -> object:
    return house.order(operation.service, "stop", wait=_wait(operation))


def restart(house: House, operation: Operation) -> object:
    return house.order(operation.service, "restart", wait=_wait(operation))


def unload(house: House, operation: Operation) -> object:
    return house.order(operation.service, "unload", wait=_wait(operation))


def _wait(operation: Operation) -> float:
    return operation.chance if operation.chance > 0.5 else 0.0


def kill_container(house: House, operation: Operation) -> object:
    return house.docker("kill", operation.service)


def run_out_of_memory(house: House, operation: Operation) -> object:
    return house.kill_engine_process(operation.service)


def pause_container(house: House, operation: Operation) -> object:
    return house.docker("pause", operation.service)


def unpause_containers(house: House, _: Operation) -> object:
    return [house.docker("unpause", service) for service in CONTAINERS]


def kill_engine(house: House, _: Operation) -> None:
    house.kill_engine()


def start_engine(house: House, operation: Operation) -> None:
    house.start_engine(live_restore=operation.chance < 0.5)


def kill_proxy(house: House, _: Operation) -> None:
    house.kill_proxy()


def end_proxy(house: House, _: Operation) -> None:
    house.end_proxy()


def start_proxy(house: House, _: Operation) -> None:
    house.open()


def change_service(house: House, operation: Operation) -> None:
    if operation.service in house.variants:
        house.variants[operation.service] += 1
    house.reload()


def add_or_remove_guest(house: House, operation: Operation) -> None:
    if house.variants.pop(GUEST, None) is None:
        house.variants[GUEST] = round(operation.chance)
    house.reload()


KINDS = {
    "start": Kind(start, 14),
    "stop": Kind(stop, 7),
    "restart": Kind(restart, 7),
    "unload": Kind(unload, 7),
    "kill_container": Kind(kill_container, 9, CONTAINERS),
    "run_out_of_memory": Kind(run_out_of_memory, 6, CONTAINERS),
    "pause_container": Kind(pause_container, 6, CONTAINERS, "unpause_containers", 4),
    "unpause_containers": Kind(unpause_containers, 0),
    "kill_engine": Kind(kill_engine, 2, undone_by="start_engine", within=6),
    "start_engine": Kind(start_engine, 0),
    "kill_proxy": Kind(kill_proxy, 2, undone_by="start_proxy", within=2),
    "end_proxy": Kind(end_proxy, 1, undone_by="start_proxy", within=2),
    "start_proxy": Kind(start_proxy, 0),
    "change_service": Kind(change_service, 6),
    "add_or_remove_guest": Kind(add_or_remove_guest, 4, (GUEST,)),
}


def plan(seed: int, count: int) -> Iterator[Operation]:
    """Draw operations; those that are to be undone are, a few operations later."""
    random = Random(seed)  # noqa: S311
    due: dict[str, int] = {}
    for number in range(count):
        name = next((undo for undo, when in due.items() if when <= number), None) or _draw(random, due)
        due.pop(name, None)
        if undo := KINDS[name].undone_by:
            due[undo] = number + random.randint(1, KINDS[name].within)
        service, rest = random.choice(KINDS[name].services), random.choice((0.0, 0.0, 0.05, 0.2))
        yield Operation(name, service, random.random(), rest)


def _draw(random: Random, due: dict[str, int]) -> str:
    names = [name for name, kind in KINDS.items() if kind.undone_by not in due]
    return random.choices(names, [KINDS[name].weight for name in names])[0]


def carry_out(house: House, operation: Operation) -> None:
    """Do it, and say what came of it."""
    house.say(str(operation))
    outcome = KINDS[operation.name].do(house, operation)
    house.say(f"    {getattr(outcome, 'body', outcome)}")
