"""Replies as strict JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from errors import InternalError
from worker.output.strict_json import dump_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_reply_is_dumped_so_that_it_parses_back_or_is_refused(reply: dict[str, Any]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    try:
        text = dump_json(reply)
    except InternalError:
        return
    assert json.loads(text.encode(), parse_constant=refuse) == reply
