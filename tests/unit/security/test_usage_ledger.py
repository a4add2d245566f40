import pytest
from tests.rigs.usage import finished
from tests.unit.security.broken import Fault, FaultyUsage

from ai_proxy.core.errors import StoreFullError
from ai_proxy.core.store_ports import Usage
from ai_proxy.core.usage import UNKNOWN
from ai_proxy.persistence.store import Store
from ai_proxy.security.usage import MAX_A_DAY, MAX_A_KEY, MAX_PENDING, OTHER_MODELS, UsageLedger
from ai_proxy.testing.fakes import FakeClock

DAY = "2023-11-14"


async def test_requests_are_counted_and_written_in_batches(store: Store, clock: FakeClock) -> None:
    ledger = UsageLedger(store.usage, clock)
    ledger.note_all([finished(key_id="k1", tokens_in=10, tokens_out=5)])
    ledger.note_all([finished(key_id="k1", tokens_in=UNKNOWN, tokens_out=UNKNOWN)])
    ledger.note_all([finished(key_id="k1", model="coder", tokens_in=1, tokens_out=1)])
    assert await store.usage.totals() == []

    await ledger.flush()
    await ledger.flush()

    assert await store.usage.totals() == [
        Usage("k1", "coder", DAY, 1, 1, 1),
        Usage("k1", "llama3", DAY, 2, 10, 5),
    ]


async def test_what_cannot_be_written_is_written_later_and_once(store: Store, clock: FakeClock) -> None:
    fault = Fault()
    ledger = UsageLedger(FaultyUsage(store.usage, fault), clock)
    fault.on = True
    for _ in range(3):
        ledger.note_all([finished(key_id="k1", tokens_in=1, tokens_out=1)])
        with pytest.raises(StoreFullError):
            await ledger.flush()

    fault.on = False
    await ledger.flush()

    assert await store.usage.totals() == [Usage("k1", "llama3", DAY, 3, 3, 3)]


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
async def test_made_up_models_do_not_fill_the_memory(store: Store, clock: FakeClock) -> None:
    ledger = UsageLedger(store.usage, clock)
    for number in range(MAX_PENDING + 1):
        ledger.note_all(
            [finished(key_id=f"k{number // 100}", model=f"model-{number}", tokens_in=1, tokens_out=0)]
        )

    await ledger.flush()

    totals = await store.usage.totals()
    assert len(totals) == MAX_PENDING + 1
    assert Usage(f"k{MAX_PENDING // 100}", OTHER_MODELS, DAY, 1, 1, 0) in totals


async def test_whatever_a_client_or_a_backend_says_can_be_written(store: Store, clock: FakeClock) -> None:
    ledger = UsageLedger(store.usage, clock)
    model = "\x00\ud800" + "x" * 10_000
    ledger.note_all([finished(key_id="k1", model=model, tokens_in=10**30, tokens_out=-(10**30))])

    await ledger.flush()

    [usage] = await store.usage.totals()
    assert len(usage.model) == 200
    assert (usage.tokens_in, usage.tokens_out) == (10**9, 0)


async def test_finished_requests_count_for_the_keys_they_came_with(store: Store, clock: FakeClock) -> None:
    ledger = UsageLedger(store.usage, clock)

    ledger.note_all(
        [
            finished(key_id="k1"),
            finished(key_id="k1", tokens_out=UNKNOWN),
            finished(),
            finished(key_id="k1", service_id=""),
        ]
    )
    await ledger.flush()

    (row,) = await store.usage.totals()
    assert (row.key_id, row.model, row.requests, row.tokens_in, row.tokens_out) == ("k1", "llama3", 2, 18, 21)


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_a_key_that_invents_names_all_day_takes_no_room_from_others(
    store: Store, clock: FakeClock
) -> None:
    ledger = UsageLedger(store.usage, clock)

    for batch in range(12):
        ledger.note_all([finished(key_id="k1", model=f"m{batch}-{n}") for n in range(1000)])
        ledger.note_all([finished(key_id="k2", model=f"mine-{batch}")])
        await ledger.flush()

    totals = await store.usage.totals()
    assert len([one for one in totals if one.key_id == "k1"]) == MAX_A_KEY + 1
    assert {one.model for one in totals if one.key_id == "k2"} == {f"mine-{batch}" for batch in range(12)}
    assert sum(one.requests for one in totals) == 12_012


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_keys_that_invent_names_together_fill_no_disk(store: Store, clock: FakeClock) -> None:
    ledger = UsageLedger(store.usage, clock)
    keys = MAX_A_DAY // MAX_A_KEY + 5

    for key in range(keys):
        ledger.note_all([finished(key_id=f"k{key}", model=f"m{n}") for n in range(MAX_A_KEY)])
        await ledger.flush()

    totals = await store.usage.totals()
    assert len(totals) == MAX_A_DAY + 5
    assert sum(one.requests for one in totals) == keys * MAX_A_KEY
