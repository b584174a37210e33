"""The claims of a lecture on training neural networks, each measured by a job of ``jobs/lecture``.

``python -m benchmarks.lecture`` trains the jobs and writes ``docs/lecture.md`` with its plots.
"""
