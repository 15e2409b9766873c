"""Redis and Valkey: commands, lookups in batches, copies in this process, over one socket."""
