"""Payloads: serialised and checked on the way in, checked, parsed and structured on the way out."""

from zodworker_compat.payload.codec import PayloadCodec
from zodworker_compat.payload.stringify import stringify
from zodworker_compat.payload.unset import UNSET, Unset

__all__ = ["UNSET", "PayloadCodec", "Unset", "stringify"]
