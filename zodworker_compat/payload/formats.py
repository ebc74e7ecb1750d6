"""The two string formats of zod schemas, as Node 20 judges them: URLs and dates.

`tests/unit/data/node_formats.json` holds what Node said about the cases we compared.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import unquote_to_bytes

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MILLISECOND: Final = -62_135_596_800_000
LAST_MILLISECOND: Final = 253_402_300_799_999
"""The years 1 to 9999, in milliseconds since 1970: what a Python datetime can hold."""

_DATE = re.compile(
    r"""(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?
        (?:[T ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?
        (?:(?P<utc>Z)|(?P<sign>[+-])(?P<offset_hours>\d\d):?(?P<offset_minutes>\d\d))?)?""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)


def parse_date(text: str) -> datetime | None:
    """Read a date as JavaScript's `new Date(text)` does; None if it is not one.

    Accepted: `YYYY[-MM[-DD]]`, alone or with `T` or a space and `HH:MM[:SS[.fraction]]` and
    `Z`, `±HH:MM` or `±HHMM`. As in Node: a missing month or day is 1, 24:00 is the next
    midnight, February 30 is March 1 or 2, a fraction is cut to milliseconds. Without a zone the
    time is UTC (Node: the zone of its process). Other spellings that V8 guesses at
    ("Jan 2, 2024") and years outside 1 to 9999 are refused.
    """
    match = _DATE.fullmatch(text)
    if not match:
        return None
    part = {name: int(value) for name, value in match.groupdict("0").items() if value.isdigit()}
    month = part["month"] if match["month"] else 1
    day = part["day"] if match["day"] else 1
    hour, minute, second = part["hour"], part["minute"], part["second"]
    milliseconds = int(match["fraction"][:3].ljust(3, "0")) if match["fraction"] else 0
    midnight = hour == 24 and not (minute or second or milliseconds)  # noqa: PLR2004
    if not 1 <= day <= 31 or not (hour < 24 or midnight):  # noqa: PLR2004
        return None
    if part["offset_hours"] > 23 or part["offset_minutes"] > 59:  # noqa: PLR2004
        return None
    offset = timedelta(hours=part["offset_hours"], minutes=part["offset_minutes"])
    try:
        moment = datetime(part["year"], month, 1, hour % 24, minute, second, tzinfo=UTC)
        return (
            moment
            + timedelta(days=day - 1 + midnight, milliseconds=milliseconds)
            + (offset if match["sign"] == "-" else -offset)
        )
    except (ValueError, OverflowError):
        return None


def from_milliseconds(milliseconds: float) -> datetime | None:
    """Return the moment that many milliseconds after 1970, UTC; None outside the years 1 to 9999."""
    if not FIRST_MILLISECOND <= milliseconds <= LAST_MILLISECOND:
        return None
    return EPOCH + timedelta(milliseconds=int(milliseconds))


def to_json_date(moment: datetime) -> str:
    """Write an aware datetime as JavaScript's `toISOString`: UTC, milliseconds, `Z`.

    Raises:
        ValueError: the datetime is naive.
        OverflowError: in UTC it lies outside the years 1 to 9999.
    """
    if moment.utcoffset() is None:
        raise ValueError("a naive datetime")
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text}Z"


def is_date(text: object) -> bool:
    """Whether a value passes `format: date-time`; only strings can fail."""
    return not isinstance(text, str) or parse_date(text) is not None


_COMMON_URL = re.compile(
    r"https?://(?:[a-z0-9]+[.-])*[a-z]+(?::\d{1,4})?(?:[/?#]|\Z)", re.ASCII | re.IGNORECASE
)
_SPECIAL: Final = frozenset({"http", "https", "ws", "wss", "ftp"})
_C0_AND_SPACE: Final = "".join(map(chr, range(0x21)))
_URL = re.compile(r"([a-z][a-z0-9+.-]*):(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_FORBIDDEN_HOST = re.compile(r"[\0\t\n\r #/:<>?@\[\\\]^|]")
_FORBIDDEN_DOMAIN = re.compile(r"[\0-\x20#/:<>?@\[\\\]^|%\x7f]")
_PORT = re.compile(r"\d*", re.ASCII)
_IGNORED_IN_DOMAINS = re.compile("[\u00ad\u200b\u2060\ufeff\ufe00-\ufe0f]")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)


def is_url(text: object) -> bool:
    """Whether a value passes `format: uri`: the WHATWG URL constructor would not throw.

    Any scheme will do; http, https, ws, wss and ftp need a host. Only strings can fail.
    """
    if not isinstance(text, str) or _COMMON_URL.match(text):
        return True
    match = _URL.fullmatch(re.sub(r"[\t\n\r]", "", text.strip(_C0_AND_SPACE)))
    if not match:
        return False
    scheme, rest = match[1].lower(), match[2]
    if scheme in _SPECIAL:
        return _is_authority(re.split(r"[/\\?#]", rest.lstrip("/\\"), maxsplit=1)[0], special=True)
    if scheme == "file":
        rest = rest.replace("\\", "/")
        host = re.split(r"[/?#]", rest[2:], maxsplit=1)[0] if rest.startswith("//") else ""
        return not host or re.fullmatch("[a-zA-Z][:|]", host) is not None or _is_domain(host)
    if rest.startswith("//"):
        return _is_authority(re.split(r"[/?#]", rest[2:], maxsplit=1)[0], special=False)
    return True


def _is_authority(authority: str, *, special: bool) -> bool:
    credentials, at, host_and_port = authority.rpartition("@")
    host, colon, port = re.fullmatch(  # type: ignore[union-attr] # every string matches
        r"(\[[^\]]*\]|[^:]*)(:?)(.*)", host_and_port, re.DOTALL
    ).groups()
    if not host:
        return not special and not at and not colon and not credentials
    if not _PORT.fullmatch(port) or (port and not colon) or int(port or 0) >= 2**16:
        return False
    if special or host.startswith("["):
        return _is_domain(host)
    return not _FORBIDDEN_HOST.search(host)


def _is_domain(host: str) -> bool:
    if host.startswith("["):
        return host.endswith("]") and _is_ipv6(host[1:-1])
    try:
        decoded = unquote_to_bytes(host).decode("utf-8")
    except UnicodeError:
        return False
    domain = unicodedata.normalize("NFKC", _IGNORED_IN_DOMAINS.sub("", decoded)).replace(
        "\u3002", "."
    )
    if not domain or _FORBIDDEN_DOMAIN.search(domain):
        return False
    return all(map(_is_label, domain.split("."))) and _is_ipv4_or_name(domain)


def _is_label(label: str) -> bool:
    if not label.lower().startswith("xn--"):
        return True
    try:
        name = label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return name.isprintable() and not name.isascii()


def _is_ipv4_or_name(domain: str) -> bool:
    """A domain whose last label is a number must be an IPv4 address, in any of its old forms."""
    labels = domain.removesuffix(".").split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return True
    try:
        numbers = [_ipv4_number(label) for label in labels]
    except ValueError:
        return False
    *leading, last = numbers
    return len(leading) < 4 and all(n < 256 for n in leading) and last < 256 ** (4 - len(leading))  # noqa: PLR2004


def _ipv4_number(label: str) -> int:
    if label[:2].lower() == "0x":
        return int(label[2:] or "0", 16)
    return int(label, 8 if len(label) > 1 and label.startswith("0") else 10)


def _is_ipv6(address: str) -> bool:
    try:
        return not IPv6Address(address).scope_id
    except AddressValueError:
        return False
