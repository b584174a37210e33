"""What training needs, loaded by each process of an embedded Ray as it starts, before it is given anything to do.

A process that has run a task never becomes an actor of Tune's, so a task cannot do this for slots.
"""

from __future__ import annotations

from importlib import import_module

from ensemble_svc.collector import collect_seldom

collect_seldom()
for name in ("ensemble_svc.cluster.worker", "ensemble_svc.train.fit"):
    import_module(name)
