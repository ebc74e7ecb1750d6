"""The text of a crontab file: graphile-worker's syntax and words."""

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zodworker_compat.cron import CronOptions, CrontabError, parse_crontab
from zodworker_compat.errors import ConfigurationError

EXAMPLE = """
# Comments, blank lines,
   # and white space.

0 4 * * * simple
*/10,7,56-59   1,3-5 1-31\t*/3 7   every_option   ?id=stuff&fill=4w3d2h1m5s&max=3&queue=my_queue&priority=-3   {isTuesday: true, list: [1, .5, 0x1F,], 'text': "it's"}\r
0 0 * * 0 keyed ?jobKey=a+b%2Bc%C3%A9&id=keyed_once
0 0 * * 0 keyed ?jobKey=k&jobKeyMode=preserve_run_at
* * * * * nested/task:with-all_sorts {}
"""


def test_a_whole_crontab():
    simple, every, once, keyed, nested = parse_crontab(EXAMPLE)
    assert (simple.task, simple.identifier, simple.payload) == ("simple", "simple", None)
    assert simple.options == CronOptions()
    assert every.match.text == "*/10,7,56-59 1,3-5 1-31 */3 7"
    assert (every.task, every.identifier) == ("every_option", "stuff")
    assert every.payload == {"isTuesday": True, "list": [1, 0.5, 31], "text": "it's"}
    assert every.options == CronOptions(
        backfill_period=timedelta(weeks=4, days=3, hours=2, minutes=1, seconds=5),
        max_attempts=3,
        queue_name="my_queue",
        priority=-3,
    )
    assert once.options == CronOptions(job_key="a b+cé", job_key_mode="replace")
    assert keyed.options == CronOptions(job_key="k", job_key_mode="preserve_run_at")
    assert (nested.task, nested.payload) == ("nested/task:with-all_sorts", {})


@pytest.mark.parametrize("text", ["", "\n\r\n", "# nothing", "\ufeff \t\n"])
def test_an_empty_crontab(text):
    assert parse_crontab(text) == []


KEYS = "'id', 'fill', 'max', 'queue', 'jobKey', 'jobKeyMode', 'priority'"
OPTIONS = "Options on line 1 of crontab contains"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("* * * * too_few_parameters", "Could not process line '1' of crontab: '* * * * too_few_parameters'"),
        ("* * * * *", "Could not process line '1' of crontab: '* * * * *'"),
        ("  @daily task ", "Could not process line '1' of crontab: '@daily task'"),
        ("* * * * MON task", "Could not process line '1' of crontab: '* * * * MON task'"),
        ("\n\r\nfoo", "Could not process line '3' of crontab: 'foo'"),
        ("* * * * * a\r* * * * * b", "Could not process line '1' of crontab: '* * * * * a\r* * * * * b'"),
        ("\r\n60 * * * * t", "Too large value '60' in minutes range in line 2 of crontab: expected values in the range 0-59."),
        ("60 * * * * 1t", "Too large value '60' in minutes range in line 1 of crontab: expected values in the range 0-59."),
        ("* * * * * 1t", "Invalid command specification in line 1 of crontab."),
        ("* * * * * /t", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t x", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t # c", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t ?", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t?id=x", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t{a:1}", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t {a:1} x", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t {a:1", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t [1]", "Invalid command specification in line 1 of crontab."),
        ("* * * * * t ?unknown=3", f"{OPTIONS} unsupported key 'unknown'; supported keys are: {KEYS}."),
        ("* * * * * t ?tz=UTC", f"{OPTIONS} unsupported key 'tz'; supported keys are: {KEYS}."),
        ("* * * * * t ?=", f"{OPTIONS} unsupported key ''; supported keys are: {KEYS}."),
        ("* * * * * t ?a%zz=1", f"{OPTIONS} unsupported key 'a%zz'; supported keys are: {KEYS}."),
        ("* * * * * t ?max=1&m%61x=2", f"{OPTIONS} invalid value for 'max', did you specify it more than once?"),
        ("* * * * * t ?unknown=1&unknown=1", f"{OPTIONS} invalid value for 'unknown', did you specify it more than once?"),
        ("* * * * * t ?id=1", f"{OPTIONS} invalid value for 'id', value '1' is not compatible with this option."),
        ("* * * * * t ?id=x%0A", f"{OPTIONS} invalid value for 'id', value 'x\n' is not compatible with this option."),
        ("* * * * * t ?id=x{a:1}", f"{OPTIONS} invalid value for 'id', value 'x{{a:1}}' is not compatible with this option."),
        ("* * * * * t ?id", f"{OPTIONS} invalid value for 'id', value '' is not compatible with this option."),
        ("* * * * * t ?fill=1M", f"{OPTIONS} invalid value for 'fill', value '1M' is not compatible with this option."),
        ("* * * * * t ?fill=1h+1m", f"{OPTIONS} invalid value for 'fill', value '1h 1m' is not compatible with this option."),
        ("* * * * * t ?max=-1", f"{OPTIONS} invalid value for 'max', value '-1' is not compatible with this option."),
        ("* * * * * t ?queue=a.b", f"{OPTIONS} invalid value for 'queue', value 'a.b' is not compatible with this option."),
        ("* * * * * t ?jobKeyMode=unsafe_dedupe", f"{OPTIONS} invalid value for 'jobKeyMode', value 'unsafe_dedupe' is not compatible with this option."),
        ("* * * * * t ?priority=+1", f"{OPTIONS} invalid value for 'priority', value ' 1' is not compatible with this option."),
        ("* * * * * t ?max=x {=}", f"{OPTIONS} invalid value for 'max', value 'x' is not compatible with this option."),
        ("* * * * * t\n* * * * * u\n1 * * * * t", "Invalid crontab; duplicate identifiers found: 't' - please use '?id=...' to specify unique identifiers for your cron items"),
        ("* * * * * t\n* * * * * u\n1 * * * * u\n* * * * * a ?id=t\n* * * * * t", "Invalid crontab; duplicate identifiers found: 't', 't', 'u' - please use '?id=...' to specify unique identifiers for your cron items"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_in_graphile_workers_words(line, message):
    with pytest.raises(CrontabError) as refused:
        parse_crontab(line)
    assert str(refused.value) == message
    assert isinstance(refused.value, ConfigurationError)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("* * * * * t {invalidPayload=true}", "Failed to parse JSON5 payload on line 1 of crontab: JSON5: Unexpected"),
        ("* * * * * t {a: 1}{b: 2}", "Failed to parse JSON5 payload on line 1 of crontab: JSON5: Unexpected"),
        (f"* * * * * t {{a: {'[' * 500}{']' * 500}}}", "Failed to parse JSON5 payload on line 1 of crontab: JSON5: it is nested too deeply"),
        # What no job can have, and graphile-worker finds out when it is time:
        ("* * * * * t {a: [NaN]}", "Failed to parse JSON5 payload on line 1 of crontab: The payload cannot be written as JSON at /a/0: nan"),
        ("* * * * * t ?max=0", f"{OPTIONS} invalid value for 'max', value '0' is not compatible with this option. max_attempts: must be at least 1"),
        ("* * * * * t ?max=32768", f"{OPTIONS} invalid value for 'max', value '32768' is not compatible with this option. max_attempts: 32768 does not fit"),
        ("* * * * * t ?priority=-32769", f"{OPTIONS} invalid value for 'priority', value '-32769' is not compatible with this option. priority: -32769 does not fit"),
        (f"* * * * * t ?queue={'q' * 129}", f"{OPTIONS} invalid value for 'queue', value '{'q' * 129}' is not compatible with this option. queue_name: is 129 characters long"),
        ("* * * * * t ?jobKey=%00", f"{OPTIONS} invalid value for 'jobKey', value '\0' is not compatible with this option. job_key: holds NUL"),
        ("* * * * * t ?fill=99999999999999w", f"{OPTIONS} invalid value for 'fill', value '99999999999999w' is not compatible with this option. backfill_period: 6047"),
        (f"* * * * * {'t' * 129}", "Invalid command specification in line 1 of crontab. task: expected 1 to 128 characters"),
    ],
)  # fmt: skip
def test_what_no_job_can_have_is_refused_with_the_reason(line, message):
    with pytest.raises(CrontabError) as refused:
        parse_crontab(line)
    assert str(refused.value).startswith(message)


@given(st.text(st.characters(codec="utf-8")) | st.text("*0159-/, ?=&%{}:atmx\n\r\t#"))
def test_any_text_is_a_crontab_or_refused(text):
    for crontab in (text, f"* * * * * t {text}", f"* * * * * t ?{text}"):
        with suppress(CrontabError):
            parse_crontab(crontab)
