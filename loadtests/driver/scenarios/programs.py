"""Scenarios that take long and are programs of their own, with results of their own."""

from ..scenario import Program

SCENARIOS = [
    Program("soak", "three nodes, one killed every minute, Redis restarted; memory over half an hour", "soak"),
    Program("redis-cost", "commands per second at Redis by nodes and servers; half an hour", "redis-cost"),
    Program("churn", "100,000 replicas and 100,000 sessions that come and go; twenty minutes", "churn"),
]
