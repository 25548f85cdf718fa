"""What is imported once for several functions: only what several name, and what saves most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.pool.sharing import MOST, Member, common, saved_s

NUMPY, PANDAS, BOTH = frozenset({"numpy"}), frozenset({"pandas"}), frozenset({"numpy", "pandas"})
members = st.lists(
    st.builds(
        Member,
        function=st.sampled_from("abcdefgh"),
        imports=st.frozensets(st.sampled_from(["numpy", "pandas", "scipy", "yaml"])),
        lost_s=st.floats(0, 100),
    ),
    max_size=24,
)


def test_one_function_alone_shares_nothing() -> None:
    assert common([Member("a", BOTH, 1.0), Member("a", BOTH, 1.0)]) == frozenset()


def test_which_functions_are_looked_at_does_not_hang_on_the_order_in_which_they_came() -> None:
    none = frozenset[str]()
    alike = [Member("a", none, 0.0)] * (MOST - 2) + [Member("b", none, 0.0)]
    alike += [Member("a", NUMPY, 0.0), Member("b", NUMPY, 0.0)]
    assert common(alike) == common(alike[::-1])


def test_what_most_time_is_lost_with_is_shared() -> None:
    often = [Member("a", BOTH, 10.0), Member("b", BOTH, 10.0), Member("c", NUMPY, 0.1)]
    assert common(often) == BOTH
    seldom = [Member("a", BOTH, 1.0), Member("b", BOTH, 1.0), *(Member(name, NUMPY, 10.0) for name in "cde")]
    assert common(seldom) == NUMPY


@given(members)
def test_what_is_shared_is_named_by_two_functions_and_nothing_that_two_name_saves_more(
    several: list[Member],
) -> None:
    choice = common(several)
    assert choice == common(list(reversed(several))), "the order in which they came says nothing"
    if choice:
        naming = {one.function for one in several if choice <= one.imports}
        assert len(naming) >= 2
    if len(several) <= MOST:
        for one in several:
            for other in several:
                if one.function != other.function and one.imports & other.imports:
                    assert saved_s(choice, several) >= saved_s(one.imports & other.imports, several)
