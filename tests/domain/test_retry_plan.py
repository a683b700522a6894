"""What a workflow's retry runs again: everything that didn't succeed and still can, and no more."""

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.retry_plan import Again, Node, plan_retry
from penstock.domain.workflow import Counts, Decision, RunIf, decide
from tests.support import making

S, D, C, K = State.SUCCEEDED, State.DEAD, State.CANCELLED, State.SKIPPED


def graph(
    parents: Mapping[str, Sequence[str]],
    states: Mapping[str, State | None],
    run_if: Mapping[str, RunIf] | None = None,
) -> list[Node]:
    ids = {name: making.job_id() for name in parents}
    return [
        Node(
            ids[name],
            name,
            (run_if or {}).get(name, RunIf.ALL_SUCCEEDED) if of else None,
            tuple(ids[one] for one in of),
            states[name],
        )
        for name, of in parents.items()
    ]


def planned(nodes: Sequence[Node], names: Sequence[str] | None = None) -> dict[str, Again]:
    by_id = {node.id: node.name for node in nodes}
    return {by_id[one.id]: one for one in plan_retry(nodes, names)}


DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def test_the_dead_one_runs_at_once_and_what_it_led_to_waits_for_it() -> None:
    plan = planned(graph(DIAMOND, {"a": S, "b": D, "c": S, "d": K}))
    assert set(plan) == {"b", "d"}
    assert (plan["b"].is_due, plan["b"].was) == (True, D)
    assert (plan["d"].is_due, plan["d"].counts) == (False, Counts(succeeded=1))


def test_from_a_name_it_runs_that_and_what_lies_downstream() -> None:
    nodes = graph({**DIAMOND, "x": []}, {"a": S, "b": D, "c": D, "d": K, "x": D})
    assert set(planned(nodes, ["x"])) == {"x"}
    assert set(planned(nodes, ["b"])) == {"b"}, "d can't run: c stays dead"
    assert set(planned(nodes, ["b", "c"])) == {"b", "c", "d"}
    assert set(planned(nodes, ["a"])) == {"b", "c", "d"}, "a itself is kept"


def test_what_was_skipped_with_good_reason_stays_skipped() -> None:
    nodes = graph(
        {"a": [], "mail": ["a"], "b": []},
        {"a": S, "mail": K, "b": D},
        {"mail": RunIf.ANY_FAILED},
    )
    assert set(planned(nodes)) == {"b"}


def test_a_child_of_one_that_runs_again_waits_even_where_it_ran_before() -> None:
    nodes = graph({"a": [], "told": ["a"]}, {"a": D, "told": C}, {"told": RunIf.ANY_FAILED})
    plan = planned(nodes)
    assert (plan["told"].is_due, plan["told"].counts) == (False, Counts())


def test_a_parent_that_still_runs_is_waited_for() -> None:
    nodes = graph({"a": [], "b": ["a"]}, {"a": None, "b": C})
    assert planned(nodes)["b"].is_due is False


@st.composite
def any_graph(draw: st.DrawFn) -> list[Node]:
    size = draw(st.integers(1, 12))
    ids = [making.job_id() for _ in range(size)]
    nodes = []
    for n in range(size):
        of = draw(st.lists(st.sampled_from(ids[:n]), unique=True, max_size=4)) if n else []
        state = draw(st.sampled_from([S, D, C, K, None]))
        run_if = draw(st.sampled_from(list(RunIf))) if of else None
        nodes.append(Node(ids[n], f"n{n}", run_if, tuple(of), state))
    return draw(st.permutations(nodes))


@given(any_graph(), st.lists(st.sampled_from([f"n{n}" for n in range(12)])) | st.none())
def test_nothing_that_succeeded_or_lives_runs_again_and_nothing_begins_decided_against(
    nodes: list[Node], names: list[str] | None
) -> None:
    by_id = {node.id: node for node in nodes}
    again = {one.id: one for one in plan_retry(nodes, names)}
    order = list(again)
    for id_, one in again.items():
        node = by_id[id_]
        assert node.state in (D, C, K)
        assert one.was is node.state
        kept = Counts()
        for parent in node.parents:
            state = by_id[parent].state
            if parent in again:
                assert order.index(parent) < order.index(id_), "parents come first"
            elif state is not None:
                kept = kept.plus(state)
        assert one.counts == kept
        if node.run_if is None:
            assert one.is_due
        else:
            decision = decide(node.run_if, kept, len(node.parents))
            assert decision is not Decision.SKIP
            assert one.is_due == (decision is Decision.RUN)


@given(any_graph())
def test_all_that_can_run_again_does(nodes: list[Node]) -> None:
    again: set[JobId] = {one.id for one in plan_retry(nodes, None)}
    by_id = {node.id: node for node in nodes}
    for node in nodes:
        if node.state in (D, C, K) and node.id not in again:
            kept = Counts()
            for parent in node.parents:
                state = by_id[parent].state
                if state is not None and parent not in again:
                    kept = kept.plus(state)
            assert node.run_if is not None
            assert decide(node.run_if, kept, len(node.parents)) is Decision.SKIP
