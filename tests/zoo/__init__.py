"""Small programs of many kinds, in both languages, over which laws are tested."""

from __future__ import annotations

from zoo import conditional, counts, matrices, mixtures, panel, regression, scans, series, sites
from zoo.entries import Entry as Entry
from zoo.entries import entries_of
from zoo.hosts import Host as Host
from zoo.hosts import host as host

MODULES = (regression, counts, panel, series, scans, matrices, mixtures, conditional, sites)
ENTRIES = [e for module in MODULES for e in entries_of(module)]
