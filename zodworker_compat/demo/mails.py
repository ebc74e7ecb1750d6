"""Which e-mail an event leads to."""

from collections.abc import Mapping
from typing import Any

from zodworker_compat.triggerdev import (
    ScheduleEmailInvite,
    ScheduleEmailMagicLink,
    ScheduleEmailMfaEnabled,
)


def mail_for(
    event: str, payload: Mapping[str, Any]
) -> ScheduleEmailInvite | ScheduleEmailMagicLink | ScheduleEmailMfaEnabled | None:
    """Return the e-mail that an event of this name asks for, or None."""
    match event:
        case "user.login":
            return ScheduleEmailMagicLink(to=payload["email"], magicLink=payload["magicLink"])
        case "user.invited":
            invite = {name: value for name, value in payload.items() if name != "email"}
            return ScheduleEmailInvite(to=payload["email"], **invite)
        case "user.mfa_enabled":
            return ScheduleEmailMfaEnabled(to=payload["email"], userEmail=payload["email"])
        case _:
            return None
