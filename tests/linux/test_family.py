"""Who holds too much, when that is asked of processes that come and go."""

from __future__ import annotations

import os

from stoker.linux.family import find_excess


def test_where_no_process_is_left_none_holds_too_much() -> None:
    """Also when files in scratch alone are more than all may hold."""
    assert find_excess([], -1) is None
    assert find_excess([], 0) is None


def test_the_largest_holds_too_much_when_all_together_do() -> None:
    assert find_excess([os.getpid()], 1) == os.getpid()
    assert find_excess([os.getpid()], 1 << 40) is None
