"""What the scripts of this folder share: starting programs, the gateway, servers and clients."""
