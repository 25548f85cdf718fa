"""Which sandbox runs a call: `plan` decides, `pool` acts."""

from stoker.pool.pool import Lease, Leaser, Pool

__all__ = ["Lease", "Leaser", "Pool"]
