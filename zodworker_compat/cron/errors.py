"""What is wrong with a crontab."""

from zodworker_compat.errors import ConfigurationError


class CrontabError(ConfigurationError, ValueError):
    """A crontab, or a recurring task given in code, is wrong: names the line or item and the part.

    Where graphile-worker refuses the same thing, the text is graphile-worker's.
    """
