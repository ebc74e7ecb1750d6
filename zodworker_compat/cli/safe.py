"""Text of others, made safe to print: a payload must not be able to drive the terminal."""

import json
import re

# Control characters (ESC and the one-byte CSI among them), what turns the direction of writing,
# what is invisible, and lone surrogates, which cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


def safe(text: str, *, lines: bool = False) -> str:
    r"""Return text with everything that is not plainly visible escaped as in Python: "\x1b".

    Args:
        text: of a payload, an error, a key, a name.
        lines: keep line breaks, and tabs as spaces.
    """
    if lines:
        return "\n".join(safe(line.replace("\t", "    ")) for line in text.splitlines())
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def safe_json(text: str) -> str:
    r"""Return JSON in which strings are safe, and as they were: "\u001b" is JSON's own escape.

    Line breaks stay: in JSON they stand between values only.
    """
    return _UNSAFE.sub(
        lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text
    )
