"""Lists that become shorter while a page is being drawn.

Streamlit takes away what was not drawn again only when the script has ended, and a page that
follows an answer does not end for minutes. What is left over is overwritten instead.
"""

from __future__ import annotations

import streamlit as st


def clear_leftover(name: str, drawn: int) -> None:
    """Called in the list's container after `drawn` elements: covers those of the run before."""
    before = st.session_state.get(f"drawn_{name}", 0)
    for _ in range(before - drawn):
        st.empty()
    st.session_state[f"drawn_{name}"] = drawn
