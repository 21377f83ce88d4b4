"""Which tests begin first."""


def pytest_collection_modifyitems(items):
    """Files marked long go first: one that is begun last keeps a core busy while the other waits."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
