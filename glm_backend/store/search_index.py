"""The index behind the search: which messages hold which tokens.

Every message that has ended is in it, and every title, put there in the transaction that wrote
them; an answer that grows is not, so that it costs nothing while it does. SQLite's is an FTS5
table without texts, PostgreSQL's a column of tsvector; neither needs an extension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, TextClause, bindparam, text

from glm_backend.store.tokens import normalised, query_tokens, tokens

#: A title stands before the first message, whose seq is 1.
TITLE_SEQ = 0
#: Bits of a document's number that are its seq; the others number the conversation.
_SEQ_BITS = 24
MOST_MESSAGES = 2**_SEQ_BITS - 1
_AT_ONCE = 1000


class Document(NamedTuple):
    """One text to be found: the title of a conversation, or a message by its seq."""

    conversation_id: str
    seq: int
    text: str


class SearchIndex(Protocol):
    """What is asked of an index, inside the caller's transaction."""

    def add(self, connection: Connection, documents: Sequence[Document]) -> None:
        """Puts documents in that are not in it."""
        ...

    def remove(self, connection: Connection, documents: Sequence[Document]) -> None:
        """Takes documents out, given exactly as they were put in."""
        ...

    def erase(self, connection: Connection, conversation_id: str) -> None:
        """Takes all documents of a conversation out, whose texts are still there."""
        ...

    def conversations_with(self, query: str) -> TextClause:
        """A subquery of the ids of conversations in which one message, or the title, holds all
        that `query` asks for. The query must ask for something."""
        ...


def index_of(connection: Connection) -> SearchIndex:
    """The index of the database behind this connection."""
    return SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL


class SqliteIndex:
    """FTS5: a document's rowid is the number of its conversation, then its seq.

    So a hit tells its conversation without a look at the message: the commonest word among a
    million messages is counted by conversation in a quarter of a second.
    """

    def add(self, connection: Connection, documents: Sequence[Document]) -> None:
        self._write(connection, _FTS_ADD, documents)

    def remove(self, connection: Connection, documents: Sequence[Document]) -> None:
        self._write(connection, _FTS_REMOVE, documents)

    def erase(self, connection: Connection, conversation_id: str) -> None:
        for documents in _documents(connection, conversation_id):
            self.remove(connection, documents)
        connection.execute(text(_NUMBER_ERASED), {"conversation_id": conversation_id})

    def conversations_with(self, query: str) -> TextClause:
        return text(_FTS_CONVERSATIONS).bindparams(wanted=_match_expression(query))

    def _write(self, connection: Connection, statement: str, documents: Sequence[Document]) -> None:
        numbers = self._numbers(connection, sorted({d.conversation_id for d in documents}))
        # In the order of their numbers: FTS5 writes what it has gathered at every step back.
        rows = sorted(
            (numbers[d.conversation_id] << _SEQ_BITS | d.seq, " ".join(tokens(d.text)))
            for d in documents
        )
        if rows:
            connection.exec_driver_sql(statement, rows)

    def _numbers(self, connection: Connection, conversation_ids: Sequence[str]) -> dict[str, int]:
        if not conversation_ids:
            return {}
        new = [(conversation_id,) for conversation_id in conversation_ids]
        connection.exec_driver_sql(_NUMBER_NEW, new)
        query = text(_NUMBERS).bindparams(bindparam("ids", expanding=True))
        rows = connection.execute(query, {"ids": conversation_ids})
        return {row.conversation_id: row.number for row in rows}


_NUMBER_NEW = "INSERT OR IGNORE INTO search_conversations (conversation_id) VALUES (?)"
_NUMBER_ERASED = "DELETE FROM search_conversations WHERE conversation_id = :conversation_id"
_NUMBERS = "SELECT conversation_id, number FROM search_conversations WHERE conversation_id IN :ids"
_FTS_ADD = "INSERT INTO search_index (rowid, tokens) VALUES (?, ?)"
# How a table without texts is told which tokens to forget (https://sqlite.org/fts5.html, 6.3).
_FTS_REMOVE = "INSERT INTO search_index (search_index, rowid, tokens) VALUES ('delete', ?, ?)"
_FTS_CONVERSATIONS = f"""
    SELECT conversation_id FROM search_conversations WHERE number IN (
        SELECT rowid >> {_SEQ_BITS} FROM search_index WHERE search_index MATCH :wanted)
"""


def _match_expression(query: str) -> str:
    """The query for FTS5: quoted tokens, so that nothing in them is an operator."""
    whole, beginnings = query_tokens(query)
    quoted = ['"' + token.replace('"', '""') + '"' for token in (*whole, *beginnings)]
    return " AND ".join(q + "*" * (i >= len(whole)) for i, q in enumerate(quoted))


class PostgresIndex:
    """Rows of tsvectors without positions. A row takes a megabyte, so a text may need several.

    These are marked, so that what stands far apart in such a text is found together and no other
    search takes longer for it.
    """

    def add(self, connection: Connection, documents: Sequence[Document]) -> None:
        rows = [
            {"conversation_id": d.conversation_id, "seq": d.seq, "tokens": found}
            for d in documents
            for found in _rows_of_tokens(d.text)
        ]
        if rows:
            connection.execute(text(_TSVECTOR_ADD), rows)

    def remove(self, connection: Connection, documents: Sequence[Document]) -> None:
        rows = [{"conversation_id": d.conversation_id, "seq": d.seq} for d in documents]
        if rows:
            connection.execute(text(_TSVECTOR_REMOVE), rows)

    def erase(self, connection: Connection, conversation_id: str) -> None:
        connection.execute(text(_TSVECTOR_ERASE), {"conversation_id": conversation_id})

    def conversations_with(self, query: str) -> TextClause:
        asked = _tsqueries(query)
        found = text(_TSVECTOR_CONVERSATIONS).bindparams(wanted=" & ".join(asked))
        if len(asked) == 1:
            return found
        each = {f"wanted_{n}": one for n, one in enumerate(asked)}
        all_of_them = " AND ".join(_TSVECTOR_HOLDS.format(name=name) for name in each)
        in_parts = f"{_MARK_QUERY} & ({' | '.join(asked)})"
        far_apart = f"{_TSVECTOR_CONVERSATIONS} UNION ALL {_TSVECTOR_FAR_APART} {all_of_them}"
        return text(far_apart).bindparams(wanted=" & ".join(asked), in_parts=in_parts, **each)


_TSVECTOR_ADD = """
    INSERT INTO search_index (conversation_id, seq, tokens)
    VALUES (:conversation_id, :seq, array_to_tsvector(CAST(:tokens AS text[])))
"""
_TSVECTOR_REMOVE = """
    DELETE FROM search_index WHERE conversation_id = :conversation_id AND seq = :seq
"""
_TSVECTOR_ERASE = "DELETE FROM search_index WHERE conversation_id = :conversation_id"
_TSVECTOR_CONVERSATIONS = """
    SELECT conversation_id FROM search_index WHERE tokens @@ CAST(:wanted AS tsquery)
"""
_TSVECTOR_FAR_APART = """
    SELECT conversation_id FROM search_index WHERE tokens @@ CAST(:in_parts AS tsquery)
    GROUP BY conversation_id, seq HAVING
"""
_TSVECTOR_HOLDS = "bool_or(tokens @@ CAST(:{name} AS tsquery))"
#: Is in every row of a text that has several. No token of a text holds a space.
_MARK, _MARK_QUERY = " ", "' '"
# A character is in two tokens at most, and has four bytes at most; a tsvector takes 1,048,575.
_PORTION_CHARACTERS = 100_000
_OVERLAP_CHARACTERS = 200  # what is asked for and stands at the end of one portion is in the next


def _portions(text: str) -> Iterator[str]:
    """The text in parts whose tokens each fit into a row."""
    text = normalised(text)
    for start in range(0, max(len(text), 1), _PORTION_CHARACTERS - _OVERLAP_CHARACTERS):
        yield text[start : start + _PORTION_CHARACTERS]


def _rows_of_tokens(text: str) -> list[list[str]]:
    rows = [list(tokens(portion)) for portion in _portions(text)]
    return rows if len(rows) == 1 else [[*row, _MARK] for row in rows]


def _tsqueries(query: str) -> list[str]:
    """What a message must hold, each as a tsquery."""
    whole, beginnings = query_tokens(query)
    quoted = [
        "'" + token.replace("\\", "\\\\").replace("'", "''") + "'"
        for token in (*whole, *beginnings)
    ]
    return [q + ":*" * (i >= len(whole)) for i, q in enumerate(quoted)]


SQLITE = SqliteIndex()
POSTGRESQL = PostgresIndex()


def index_everything(connection: Connection) -> None:
    """Fills an empty index with all titles and all messages that have ended."""
    index = index_of(connection)
    for documents in _documents(connection):
        index.add(connection, documents)


def _documents(
    connection: Connection, conversation_id: str | None = None
) -> Iterator[list[Document]]:
    """All that belongs into the index, of one conversation or of every one, some at a time."""
    titles, texts = _TITLES, _TEXTS
    bound = {}
    if conversation_id is not None:
        titles, texts = f"{titles} AND id = :here", f"{texts} AND conversation_id = :here"
        bound = {"here": conversation_id}
    query = text(f"{titles} UNION ALL {texts}")
    rows = iter(connection.execute(query, bound, execution_options={"yield_per": _AT_ONCE}))
    while some := [Document(*row) for row in islice(rows, _AT_ONCE)]:
        yield some


_TITLES = f"SELECT id, {TITLE_SEQ}, title FROM conversations WHERE title <> ''"
_TEXTS = "SELECT conversation_id, seq, content FROM messages WHERE status <> 'generating'"
