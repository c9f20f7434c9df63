"""The pure core: from facts to a budget to a decision, and from usage to learning.

It uses no I/O, no clock, no grpc and no prometheus.
"""
