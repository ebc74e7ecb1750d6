"""Catalogs: trigger.dev's, as shipped, and those that users write as files or in code."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from zodworker_compat import resources
from zodworker_compat.catalog import Task, WorkerCatalog, recurring_codec, shipped
from zodworker_compat.errors import CatalogError, PayloadValidationError, UnknownTaskError
from zodworker_compat.options import TaskOptions

# Every identifier that trigger.dev's worker catalogs ever held.
EXECUTION = {"performRunExecution", "performRunExecutionV2", "performRunExecutionV3"}
TASK_OPERATION = {"performTaskOperation", "invokeEphemeralDispatcher"}
WORKER_QUEUE = {
    "organizationCreated",
    "endpointRegistered",
    "deliverEvent",
    "deliverEmail",
    "githubAppInstallationDeleted",
    "githubPush",
    "stopVM",
    "startInitialProjectDeployment",
    "startExecution",
    "resumeTask",
    "prepareForJobExecution",
    "prepareJobInstance",
    "deliverHttpSourceRequest",
    "refreshOAuthToken",
    "startRun",
    "prepareTriggerVariant",
    "registerJob",
    "startQueuedRuns",
    "runFinished",
    "prepareJobVersion",
    "registerSource",
    "activateSource",
    "registerDynamicTrigger",
    "events.invokeDispatcher",
    "registerSchedule",
    "events.deliverScheduled",
    "registerDynamicSchedule",
    "missingConnectionCreated",
    "apiConnectionCreated",
    "scheduleEmail",
    "indexEndpoint",
    "connectionCreated",
    "processCallbackTimeout",
    "performEndpointIndexing",
    "simulate",
    "probeEndpoint",
    "deliverRunSubscriptions",
    "deliverRunSubscription",
    "expireDispatcher",
    "deliverWebhookRequest",
    "resumeRun",
    "indexTasks",
    "v3.indexDeployment",
    "v3.resumeTaskRunDependencies",
    "v3.resumeBatchRun",
    "v3.resumeTaskDependency",
    "v3.timeoutDeployment",
    "v3.executeTasksWaitingForDeploy",
    "v3.triggerScheduledTask",
    "v3.performTaskAttemptAlerts",
    "v3.deliverAlert",
    "v3.performDeploymentAlerts",
    "v3.performBulkAction",
    "v3.performBulkActionItem",
    "v3.requeueTaskRun",
    "v3.retryAttempt",
    "v2.requeueMessage",
    "v3.reportUsage",
    "v3.enqueueDelayedRun",
    "v3.expireRun",
    "v3.cancelTaskAttemptDependencies",
    "v3.performTaskRunAlerts",
    "v3.cancelDevSessionRuns",
    "v3.processBatchTaskRun",
    "v3.processBatchTaskRunV3",
    "runengine.processBatchTaskRun",
}
RECURRING = {
    "autoIndexProductionEndpoints": "*/30 * * * *",
    "purgeOldIndexings": "0 * * * *",
    "purgeOldTaskEvents": "47 * * * *",
    "scheduleImminentDeferredEvents": "*/10 * * * *",
    "marqs.v3.queueConcurrencyMonitor": "*/5 * * * *",
    "marqs.v2.queueConcurrencyMonitor": "*/5 * * * *",
}
MADE_BY_OPTIONS_OF_THE_WORKER = {"__cleanupOldJobs", "__reporter"}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a catalog file and schema files beside it."""

    def write(content: Any, **schemas: Any) -> Path:
        (tmp_path / "schemas").mkdir(exist_ok=True)
        for name, schema in schemas.items():
            text = schema if isinstance(schema, str) else json.dumps(schema)
            (tmp_path / "schemas" / f"{name}.json").write_text(text)
        path = tmp_path / "mine.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


class TestShipped:
    def test_every_identifier_of_trigger_dev_is_accounted_for(self) -> None:
        assert set(WorkerCatalog.load("executionWorker")) == EXECUTION
        assert set(WorkerCatalog.load("taskOperationWorker")) == TASK_OPERATION
        worker_queue = WorkerCatalog.load("workerQueue")
        assert set(worker_queue) == WORKER_QUEUE
        assert {name: each.match for name, each in worker_queue.recurring.items()} == RECURRING
        tasks = EXECUTION | TASK_OPERATION | WORKER_QUEUE
        assert len(tasks | set(RECURRING) | MADE_BY_OPTIONS_OF_THE_WORKER) == 79
        assert not MADE_BY_OPTIONS_OF_THE_WORKER & tasks
        assert {path.stem for path in resources.folder("schemas").glob("*.json")} == {
            *tasks,
            "catalog.schema",
        }

    @pytest.mark.parametrize("name", ["executionWorker", "taskOperationWorker", "workerQueue"])
    def test_every_schema_is_sound(self, name: str) -> None:
        WorkerCatalog.load(name).check()

    def test_every_shared_part_is_a_schema_and_is_used(self) -> None:
        folder = resources.folder("schemas")
        texts = "".join(path.read_text() for path in folder.rglob("*.json"))
        for path in (folder / "shared").glob("*.json"):
            schema = json.loads(path.read_text())
            Draft202012Validator.check_schema(schema)
            assert schema["$id"] == path.name
            assert path.stem == "recurring" or f"{path.name}" in texts.replace(
                f'"$id": "{path.name}"', ""
            )

    @pytest.mark.parametrize("folder", ["schemas", "catalog"])
    def test_files_are_printed_one_way(self, folder: str) -> None:
        for path in resources.folder(folder).rglob("*.json"):
            text = path.read_text()
            assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"

    @pytest.mark.parametrize(
        ("catalog", "identifier", "options"),
        [
            ("workerQueue", "startRun", TaskOptions(priority=0, max_attempts=4)),
            ("workerQueue", "simulate", TaskOptions(max_attempts=5)),
            ("workerQueue", "endpointRegistered", TaskOptions(queue_name="internal-queue")),
            (
                "workerQueue",
                "startQueuedRuns",
                TaskOptions(max_attempts=3, queue_name="queue:{payload.id}"),
            ),
            ("workerQueue", "missingConnectionCreated", TaskOptions(priority=10, max_attempts=3)),
            ("executionWorker", "performRunExecution", TaskOptions(priority=0, max_attempts=1)),
        ],
    )
    def test_only_the_options_that_trigger_dev_set_are_set(
        self, catalog: str, identifier: str, options: TaskOptions
    ) -> None:
        assert WorkerCatalog.load(catalog).get(identifier).options == options

    def test_names_are_listed_when_one_is_wrong(self) -> None:
        with pytest.raises(CatalogError, match="executionWorker, taskOperationWorker, workerQueue"):
            WorkerCatalog.load("workerqueue")
        assert shipped() == ["executionWorker", "taskOperationWorker", "workerQueue"]

    def test_what_cron_stores_is_read(self) -> None:
        payload = {"_cron": {"ts": "2024-01-01T00:00:00.000Z", "backfilled": False}, "mine": 1}
        assert recurring_codec("purgeOldIndexings").decode(payload) == {
            "_cron": {"ts": datetime(2024, 1, 1, tzinfo=UTC), "backfilled": False}
        }
        with pytest.raises(PayloadValidationError, match="/_cron"):
            recurring_codec("purgeOldIndexings").decode({})


class TestGet:
    def test_gives_the_same_task_each_time(self) -> None:
        catalog = WorkerCatalog.load("workerQueue")
        assert isinstance(catalog.get("startRun"), Task)
        assert catalog.get("startRun") is catalog.tasks["startRun"]
        assert "startRun" in catalog
        assert len(catalog) == 66

    def test_suggests_the_identifier_that_was_meant(self) -> None:
        with pytest.raises(UnknownTaskError, match="Did you mean 'startRun'"):
            WorkerCatalog.load("workerQueue").get("startrun")

    def test_says_that_a_recurring_task_cannot_be_enqueued(self) -> None:
        catalog = WorkerCatalog.load("workerQueue")
        assert "purgeOldIndexings" not in catalog
        with pytest.raises(UnknownTaskError, match="is a recurring task") as caught:
            catalog.get("purgeOldIndexings")
        assert caught.value.identifier == "purgeOldIndexings"


class TestFiles:
    def test_a_users_file_finds_its_schemas_beside_it(self, write: Write) -> None:
        path = write(
            {"tasks": {"a": {"schema": "schemas/a.json", "jobKeyMode": "unsafe_dedupe"}}},
            a={"properties": {"x": {"$ref": "b.json#/$defs/inner"}}},
            b={"$defs": {"inner": {"properties": {"y": {"type": "string"}}}}},
        )
        catalog = WorkerCatalog.load(path)
        assert catalog.name == "mine"
        assert catalog.get("a").codec.decode({"x": {"y": "z", "w": 1}}) == {"x": {"y": "z"}}
        assert catalog.get("a").options == TaskOptions(job_key_mode="unsafe_dedupe")
        assert set(WorkerCatalog.load(str(path))) == {"a"}

    def test_a_schema_may_stand_in_the_catalog_itself(self, write: Write) -> None:
        catalog = WorkerCatalog.load(
            write({"tasks": {"a": {"schema": True}, "b": {"schema": {"type": "string"}}}})
        )
        assert catalog.get("a").codec.decode([1]) == [1]
        with pytest.raises(PayloadValidationError):
            catalog.get("b").codec.decode(1)

    def test_schemas_are_read_when_their_task_is_used_and_no_sooner(self, write: Write) -> None:
        path = write({"tasks": {"good": {"schema": True}, "bad": {"schema": "schemas/none.json"}}})
        catalog = WorkerCatalog.load(path)
        assert "bad" in catalog
        assert catalog.get("good")
        with pytest.raises(CatalogError, match=r"none\.json, task 'bad': cannot be read"):
            catalog.get("bad")

    def test_check_reports_every_bad_schema(self, write: Write) -> None:
        catalog = WorkerCatalog.load(
            write(
                {
                    "tasks": {
                        name: {"schema": f"schemas/{name}.json"}
                        for name in ("fine", "meta", "json", "ref", "missing", "kind")
                    }
                },
                fine={},
                meta={"properties": {"a": {"type": "strin"}}},
                json='{\n "a": }',
                ref={"properties": {"a": {"$ref": "gone.json"}}},
                kind=[],
            )
        )
        with pytest.raises(CatalogError, match="5 tasks of catalog 'mine'") as caught:
            catalog.check()
        lines = str(caught.value).splitlines()[1:]
        expected = [
            ("meta.json, task 'meta', /properties/a/type", "not a draft 2020-12 schema"),
            ("json.json, task 'json'", "line 2, column 7"),
            ("ref.json, task 'ref', /properties/a/$ref", "leads nowhere"),
            ("missing.json, task 'missing'", "cannot be read"),
            ("kind.json, task 'kind'", "expected a JSON Schema"),
        ]
        for line, (place, problem) in zip(lines, expected, strict=True):
            assert place in line
            assert problem in line

    def test_check_raises_a_single_error_as_it_is(self, write: Write) -> None:
        catalog = WorkerCatalog.load(
            write({"tasks": {"a": {"schema": "schemas/a.json"}}}, a={"type": 1})
        )
        with pytest.raises(CatalogError) as caught:
            catalog.check()
        assert (caught.value.identifier, caught.value.pointer) == ("a", "/type")
        assert str(caught.value.file).endswith("a.json")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON: .* in line 1, column 2"),
            ('{"tasks": {"a": {"schema": true}, "a": {"schema": true}}}', "the key 'a' twice"),
            ("[]", "expected an object, got an array"),
            ("{}", "/tasks: is required, but missing"),
            ({"tasks": {"a": {}}}, "task 'a', /tasks/a/schema: is required"),
            (
                {"tasks": {"a": {"schema": True, "maxAttempt": 1}}},
                r"task 'a', /tasks/a: has keys .* 'maxAttempt' \(did you mean 'maxAttempts'\?\)",
            ),
            (
                {"tasks": {"a": {"schema": True, "max_attempts": 1}}},
                r"'max_attempts' \(did you mean 'maxAttempts'\?\)",
            ),
            (
                {"tasks": {"a/b": {"schema": True, "priority": "1"}}},
                "task 'a/b', /tasks/a~1b/priority: expected a whole number, got the string",
            ),
            ({"tasks": {"a": {"schema": True, "priority": 40000}}}, "at most 32767"),
            ({"tasks": {"a": {"schema": True, "maxAttempts": 0}}}, "at least 1"),
            (
                {"tasks": {"a": {"schema": True, "jobKeyMode": "replce"}}},
                r"did you mean 'replace'\?",
            ),
            ({"tasks": {"a": {"schema": True, "flags": "x"}}}, "expected an array"),
            ({"tasks": {"x" * 129: {"schema": True}}}, "at most 128 characters"),
            ({"tasks": {"a": {"schema": 1}}}, "expected a string or an object or true or false"),
            (
                {"tasks": {"a": {"schema": True, "queueName": "q:{payload.id"}}},
                "is not a template",
            ),
            ({"tasks": {}, "recurring": {"r": {}}}, "task 'r', /recurring/r/match"),
            (
                {"tasks": {"a": {"schema": True}}, "recurring": {"a": {"match": "* * * * *"}}},
                "both a task and a recurring task",
            ),
            ({"tasks": {"a": {}, "b": {}}}, "is not a catalog:\n"),
        ],
    )
    def test_a_malformed_file_is_refused_with_the_place(
        self, write: Write, content: Any, message: str
    ) -> None:
        with pytest.raises(CatalogError, match=message) as caught:
            WorkerCatalog.load(write(content))
        assert "mine.json" in str(caught.value)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match=r"nothing\.json: cannot be read: No such file"):
            WorkerCatalog.load(tmp_path / "nothing.json")

    def test_a_file_that_is_not_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine.json").write_bytes(b'{"name": "\xff"}')
        with pytest.raises(CatalogError, match="is not UTF-8"):
            WorkerCatalog.load(tmp_path / "mine.json")

    @pytest.mark.parametrize("reference", ["../outside.json", "file:///etc/hostname"])
    def test_schemas_outside_the_folders_are_refused(
        self, write: Write, tmp_path: Path, reference: str
    ) -> None:
        path = write(
            {"tasks": {"a": {"schema": "../outside.json"}, "b": {"schema": "schemas/b.json"}}},
            b={"$ref": f"../{reference}" if reference.startswith("..") else reference},
        )
        (tmp_path.parent / "outside.json").write_text("{}")
        catalog = WorkerCatalog.load(path)
        for identifier in catalog:
            with pytest.raises(CatalogError, match="lies outside"):
                catalog.get(identifier)

    def test_links_do_not_lead_outside(self, write: Write, tmp_path: Path) -> None:
        path = write({"tasks": {"a": {"schema": "schemas/link.json"}}})
        (tmp_path.parent / "target.json").write_text("{}")
        (tmp_path / "schemas" / "link.json").symlink_to(tmp_path.parent / "target.json")
        with pytest.raises(CatalogError, match="lies outside"):
            WorkerCatalog.load(path).get("a")

    def test_the_network_is_never_asked(self, write: Write) -> None:
        path = write(
            {"tasks": {"a": {"schema": "schemas/a.json"}}},
            a={"$ref": "http://localhost:1/schema.json"},
        )
        with pytest.raises(CatalogError, match="is not a file beside the schema"):
            WorkerCatalog.load(path).get("a")


def handle(_payload: Any) -> None:
    """Stand for a handler."""


class TestInCode:
    def test_the_literal_port_keeps_options_and_handlers(self) -> None:
        catalog = WorkerCatalog.of(
            schema={"a": {"properties": {"x": {}}}, "b": True, "c": None},
            tasks={
                "a": {"maxAttempts": 3, "queueName": "q:{payload.id}", "handler": handle},
                "b": {"max_attempts": 4, "job_key": str},
                "c": TaskOptions(priority=1),
            },
            name="mine",
        )
        assert catalog.handlers == {"a": handle}
        assert catalog.get("a").options == TaskOptions(max_attempts=3, queue_name="q:{payload.id}")
        assert catalog.get("b").options.max_attempts == 4
        assert catalog.get("c").options == TaskOptions(priority=1)
        assert catalog.get("a").codec.decode({"x": 1, "y": 2}) == {"x": 1}
        catalog.check()

    @pytest.mark.parametrize(
        ("schema", "tasks", "message"),
        [
            ({}, {"a": {}}, "task 'a': has no schema; True accepts any payload"),
            ({"a": True, "ab": True}, {"ab": {}}, "task 'a': has a schema but no task"),
            ({"a": True}, {"a": {"maxAttempt": 1}}, "unknown option 'maxAttempt'.*'maxAttempts'"),
            ({"a": True}, {"a": {"maxAttempts": 1, "max_attempts": 1}}, "given twice"),
            ({"a": True}, {"a": {"maxAttempts": 0}}, "task 'a': max_attempts: must be at least 1"),
            ({"a": True}, {"a": {"priority": "1"}}, "priority: expected a whole number"),
            ({"a": True}, {"a": {"jobKey": "{payload.}"}}, "is not a template"),
            ({"a": {"type": "strin"}}, {"a": {}}, "task 'a', /type: is not a draft 2020-12"),
            ({"a": 5}, {"a": {}}, "expected a JSON Schema"),
            ({"x" * 129: True}, {"x" * 129: {}}, "1 to 128 characters"),
            ({"": True}, {"": {}}, "1 to 128 characters"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, schema: Any, tasks: Any, message: str) -> None:
        with pytest.raises(CatalogError, match=message):
            WorkerCatalog.of(schema=schema, tasks=tasks)

    def test_a_handler_that_is_none_is_refused(self) -> None:
        with pytest.raises(CatalogError, match="handler"):
            WorkerCatalog.of(schema={"a": True}, tasks={"a": {"handler": "handle"}})
