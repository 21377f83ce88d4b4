"""The tables that one side of a stream knows by their ids."""

from collections import OrderedDict

from edge.wire.table import Table

TABLES = 8


class Tables:
    """A few tables; when one more comes, the one that was not used for longest goes."""

    def __init__(self, limit: int = TABLES) -> None:
        self._limit = limit
        self._tables: OrderedDict[int, Table] = OrderedDict()
        self._fresh: list[Table] = []

    def put(self, table: Table) -> Table:
        """Keep a table; returns the one that is kept under its id, which may have been there before."""
        if table.id not in self._tables:
            self._fresh.append(table)
        kept = self._tables.setdefault(table.id, table)
        self._tables.move_to_end(table.id)
        while len(self._tables) > self._limit:
            self._tables.popitem(last=False)
        return kept

    def take_fresh(self) -> list[Table]:
        """Those that were put since the last call and had not been there: what has to be made durable."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def get(self, name: int) -> Table | None:
        """The table of this id, if it is here."""
        if name in self._tables:
            self._tables.move_to_end(name)
        return self._tables.get(name)

    def __len__(self) -> int:
        return len(self._tables)

    def __contains__(self, name: object) -> bool:
        return name in self._tables
