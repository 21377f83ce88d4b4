"""Import modules one after the other and say what each has cost; nothing but the standard library is here before."""

import importlib
import json
import sys
import time

from benchmarks.answering import memory

modules = json.loads(sys.argv[1])["modules"]
before = memory()
costs = []
for name in modules:
    started = time.perf_counter()
    importlib.import_module(name)
    costs.append({"module": name, "seconds": time.perf_counter() - started, "rss": memory()["rss"]})
print(json.dumps({"bare": before["rss"], "costs": costs, **memory()}))
