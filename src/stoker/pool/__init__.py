"""Which sandbox runs a call: `plan` decides, `pool` acts."""

from stoker.pool.pool import Leaser, Pool

__all__ = ["Leaser", "Pool"]
