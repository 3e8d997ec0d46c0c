"""Twenty deployments at once, against a slow container engine, while somebody asks for health.

To become a `Situation`: a stand-in for the engine that takes seconds per request, twenty
`mcp-fleet deploy` at once, and p99 of `/healthz` meanwhile (design: below 50 ms).
"""

from ..scenario import Planned

SCENARIO = Planned("deployments", "twenty deployments at once, against a slow engine", "container deployments")
