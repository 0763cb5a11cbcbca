"""mesh.declarative.config_file: every mistake is named with its line, column and field, and what to do about it."""

import itertools
import textwrap

import pytest

from mesh.declarative.config_file import read_config
from mesh.declarative.file_schema import ApplicationEntry, MeshConfig
from mesh.declarative.yaml_positions import ConfigError, read_yaml

NAME = "mesh.yaml"


def read(text: str) -> MeshConfig:
    return read_config(textwrap.dedent(text).lstrip("\n"), NAME)[0]


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    lines = str(caught.value).splitlines()
    return lines[1:] if lines[0].endswith(" mistakes in mesh.yaml:") else lines


def application(text: str) -> str:
    """A file with one application, whose other fields begin in line 3 and column 5."""
    return "applications:\n  - import_path: shop.app:app\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "    ")


def deployment(text: str) -> str:
    """One with one deployment, whose options begin in line 5 and column 9."""
    return application("deployments:\n  - name: Front\n" + textwrap.indent(textwrap.dedent(text).strip("\n"), "    "))


def test_a_whole_file() -> None:
    """Every field of a file is read (items 247–249)."""
    config = read(
        """
        proxy_location: HeadOnly
        http_options: {host: 0.0.0.0, port: 8080}
        logging_config: {encoding: JSON}
        grpc_options:
          port: 9090
          grpc_servicer_functions: [shop.shop_pb2_grpc:add_ShopServicer_to_server]
        applications:
          - name: shop
            route_prefix: /shop
            import_path: shop.app:build
            runtime_env: {working_dir: "https://example.org/shop.zip", env_vars: {LEVEL: debug}}
            args: {size: 3}
            logging_config: {log_level: DEBUG}
            deployments:
              - name: Front
                num_replicas: 2
                user_config: {greeting: Hello}
              - name: Stock
          - name: quiet
            route_prefix: null
            import_path: quiet.app
        """
    )
    assert config.proxy_location == "HeadOnly"
    assert config.http_options == {"host": "0.0.0.0", "port": 8080}
    assert config.grpc_options["port"] == 9090
    assert config.logging_config == {"encoding": "JSON"}
    assert config.applications[0].logging_config == {"log_level": "DEBUG"}
    shop, quiet = config.applications
    assert shop.deployments == {"Front": {"num_replicas": 2, "user_config": {"greeting": "Hello"}}, "Stock": {}}
    assert (shop.args, shop.runtime_env["env_vars"]) == ({"size": 3}, {"LEVEL": "debug"})
    assert quiet == ApplicationEntry(name="quiet", route_prefix=None, import_path="quiet.app")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[]", "mesh.yaml:1:1: must be a mapping of fields to values, got []."),
        ("false", "mesh.yaml:1:1: must be a mapping of fields to values, got False."),
        ("x: 2024-13-45", "mesh.yaml:1:4: x: this is read as timestamp but is not valid; put strings into quotes"),
        ("2024-13-45: x", "mesh.yaml:1:1: this is read as timestamp but is not valid; put strings into quotes"),
        ("x: 0x_", "mesh.yaml:1:4: x: this is read as int but is not valid; put strings into quotes"),
        ("x: " + "9" * 5000, "mesh.yaml:1:4: x: this is read as int but is not valid; put strings into quotes"),
        ("x: !!bool perhaps", "mesh.yaml:1:4: x: this is read as bool but is not valid; put strings into quotes"),
        ("[" * 3000, "mesh.yaml:1:1: the values are nested too deeply"),
        ("#" * 2_000_001, "mesh.yaml:1:1: the file has more than 2000000 characters"),
    ],
    ids=lambda value: value[:12],
)
def test_what_no_file_may_be(text: str, mistake: str) -> None:
    assert mistakes(text) == [mistake]


def test_merged_mappings_do_not_multiply() -> None:
    """Level g would otherwise have 30 ** 6 fields."""
    levels = [
        f"{name}: &{name} {{<<: [{', '.join([f'*{below}'] * 30)}]}}" for below, name in itertools.pairwise("abcdefg")
    ]
    assert read_yaml("\n".join(["a: &a {k: 1}", *levels]), NAME).data == {name: {"k": 1} for name in "abcdefg"}


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (f"health_check_period_s: {'9' * 400}", "must be a finite number, got one that is too large."),
        ("autoscaling_config: {max_replicas: 99999999999}", "must be between 1 and 100000, got 99999999999."),
        ("num_replicas: 100001", "must be between 1 and 100000, got 100001."),
        ("autoscaling_config: {aggregation_function: [mean]}", "must be one of mean, max, min, got ['mean']."),
        (
            "autoscaling_config: {policy: {policy_function: 'a:b', x: 1}}",
            "does not take x. It takes policy_function, policy_kwargs, timeout_s.",
        ),
        ("ray_actor_options: {memory: 1.0e+30}", "is in bytes and must be at most 2**53, got 1e+30."),
    ],
)
def test_values_that_nothing_can_hold(option: str, reason: str) -> None:
    (mistake,) = mistakes(deployment(option))
    assert mistake.endswith(reason)
    assert mistake.startswith("mesh.yaml:5:")


@pytest.mark.parametrize("text", ["", "# nothing", "null", "{}", "http_options: {port: 8001}", "---"])
def test_an_empty_list_must_be_explicit(text: str) -> None:
    """Deploying what was cut off or emptied by mistake would delete every application."""
    (mistake,) = mistakes(text)
    assert ": applications is missing: list what is to run, or write `applications: []`" in mistake
    assert mistake.startswith("mesh.yaml:1:")
    assert read("applications: []") == MeshConfig()


def test_an_emptied_list_of_applications_is_none() -> None:
    (mistake,) = mistakes("applications:\n  # - name: shop\nproxy_location: HeadOnly")
    assert mistake.startswith("mesh.yaml:1:14: applications: is empty: list what is to run, or write")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "mesh.yaml:1:6: this is not YAML: while parsing a flow sequence expected ',' or ']', but got"),
        ("a:\n\t- b", "mesh.yaml:2:1: this is not YAML: while scanning for the next token found character '\\t'"),
        ("a:\n  b\x07", "mesh.yaml:2:4: this is not YAML: unacceptable character '\\x07'"),
        ("applications: []\napplications: []", "mesh.yaml:2:1: applications: this field is given twice: remove one"),
        ("1: 2", "mesh.yaml:1:1: the key 1 is not a string: put it into quotes"),
        ("applications: &a [*a]", "mesh.yaml:1:15: applications[0]: this value contains itself"),
        ("- a", "mesh.yaml:1:1: must be a mapping of fields to values, got ['a']."),
    ],
)
def test_what_is_not_even_a_mapping(text: str, expected: str) -> None:
    (line,) = mistakes(text)
    assert line.startswith(expected)


def test_a_small_file_cannot_become_a_huge_value() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    assert "the file has more than 100000 values" in mistakes("\n".join(levels))[0]


def test_merged_mappings_may_be_overridden() -> None:
    config = read(
        """
        applications:
          - &first {name: a, route_prefix: /a, import_path: "a:app", args: {x: 1}}
          - <<: *first
            name: b
            route_prefix: /b
        """
    )
    assert [(each.name, each.args) for each in config.applications] == [("a", {"x": 1}), ("b", {"x": 1})]


@pytest.mark.parametrize(
    ("merge", "replicas"),
    [
        ("<<: [*one, *two]", 1),
        ("<<: [*two, *one]", 2),
        ("<<: [*one, *two]\n  num_replicas: 3", 3),
        ("num_replicas: 3\n  <<: [*one, *two]", 3),
        ("<<: {<<: [*two, *one]}", 2),
    ],
)
def test_of_several_merged_mappings_the_first_wins(merge: str, replicas: int) -> None:
    """As YAML says. PyYAML's own merge differs from version to version, if a key has more than one character."""
    text = f"one: &one {{num_replicas: 1}}\ntwo: &two {{num_replicas: 2}}\nmerged:\n  {merge}"
    assert read_yaml(text, NAME).data["merged"] == {"num_replicas": replicas}


@pytest.mark.parametrize(("merge", "column"), [("1", 9), ("[{a: 1}, x]", 18)])
def test_only_mappings_can_be_merged(merge: str, column: int) -> None:
    reason = "this is not YAML: << takes a mapping or a list of mappings"
    assert mistakes(f"a: {{<<: {merge}}}") == [f"mesh.yaml:1:{column}: {reason}"]


def test_a_file_may_restrict_all_replicas_to_a_share() -> None:
    """`target_capacity` is optional (item 232)."""
    assert read("target_capacity: 50\napplications: []").target_capacity == 50
    assert read("applications: []").target_capacity is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aplications: []", "mesh.yaml:1:1: aplications: no such field: did you mean applications?"),
        (
            "applications: {}",
            "mesh.yaml:1:15: applications: must be a list (lines that begin with '- '), got a mapping.",
        ),
        ("applications: [shop.app:app]", "mesh.yaml:1:16: applications[0]: must be a mapping of fields to values, got"),
        (
            "proxy_location: Everywhere",
            "mesh.yaml:1:17: proxy_location: must be one of Disabled, HeadOnly, EveryNode, got 'Everywhere'.",
        ),
        ("http_options: {port: 80000}", "mesh.yaml:1:22: http_options.port: must be between 0 and 65535, got 80000."),
        ("http_options: {prot: 80}", "mesh.yaml:1:16: http_options.prot: no such field: did you mean port?"),
        ("http_options: 8000", "mesh.yaml:1:15: http_options: must be a mapping of fields to values, got 8000."),
        ("grpc_options:\n  port: no", "mesh.yaml:2:9: grpc_options.port: must be an integer, got False."),
        (
            "target_capacity: 150",
            "mesh.yaml:1:18: target_capacity: must be at most 100, got 150.",
        ),
        (
            "target_capacity: half",
            "mesh.yaml:1:18: target_capacity: must be a number, got 'half'.",
        ),
        (
            "logging_config: {log_level: LOUD}",
            "mesh.yaml:1:29: logging_config.log_level: 'LOUD' is unknown. Use DEBUG,",
        ),
    ],
)
def test_mistakes_at_the_top(text: str, expected: str) -> None:
    (line,) = mistakes(text if "ap" in text[:2] else f"{text}\napplications: []")
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nam: shop", "mesh.yaml:3:5: applications[0].nam: no such field: did you mean name?"),
        ("host: x", "mesh.yaml:3:5: applications[0].host: no such field: there are import_path, name, route_prefix, "),
        ("name: ''", "mesh.yaml:3:11: applications[0].name: Application name must be a non-empty string."),
        ("name: 7", "mesh.yaml:3:11: applications[0].name: Application name must be a non-empty string, got 7: put"),
        ("route_prefix: shop", "mesh.yaml:3:19: applications[0].route_prefix: must start with '/', got 'shop'."),
        ("route_prefix: /shop/", "mesh.yaml:3:19: applications[0].route_prefix: must not end with '/' unless it is"),
        ("route_prefix: 8", "mesh.yaml:3:19: applications[0].route_prefix: must be a string, got 8."),
        ("args: [1]", "mesh.yaml:3:11: applications[0].args: must be a mapping of fields to values, got [1]."),
        (
            "runtime_env:\n  working_dir: ./shop",
            "mesh.yaml:4:20: applications[0].runtime_env.working_dir: must be a URI that every node can fetch "
            "(https://, s3://, gs:// ...), got './shop'.",
        ),
        ("deployments: Front", "mesh.yaml:3:18: applications[0].deployments: must be a list (lines that begin with"),
        (
            "deployments:\n  - num_replicas: 1",
            "mesh.yaml:4:9: applications[0].deployments[0]: name is missing: name the deployment that these options",
        ),
        (
            "deployments:\n  - name: Front\n  - name: Front",
            "mesh.yaml:5:15: applications[0].deployments[1].name: deployment 'Front' is listed twice.",
        ),
    ],
)
def test_mistakes_in_an_application(text: str, expected: str) -> None:
    (line,) = mistakes(application(text))
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("import_path", "shown", "meant"),
    [
        ("app", "'app'", "for instance shop.app:app"),
        ("shop:app:app", "'shop:app:app'", "for instance shop.app:app"),
        ("shop/app.py:main", "'shop/app.py:main'", "shop.app:main"),
        ("[a]", "['a']", "for instance shop.app:app"),
    ],
)
def test_an_import_path_has_a_module_and_an_attribute(import_path: str, shown: str, meant: str) -> None:
    """The mistake is named with its line and column (item 248)."""
    assert mistakes(f"applications:\n  - import_path: {import_path}") == [
        f"mesh.yaml:2:18: applications[0].import_path: {shown} is not MODULE:APP: write {meant}."
    ]


def test_an_import_path_has_to_be_there() -> None:
    assert mistakes("applications:\n  - name: shop") == [
        "mesh.yaml:2:5: applications[0]: import_path is missing: write for instance import_path: shop.app:app."
    ]


def test_names_are_unique() -> None:
    """A default counts as given (item 248)."""
    text = """
        applications:
          - import_path: a:app
          - import_path: b:app
        """
    assert mistakes(text) == [
        "mesh.yaml:3:5: applications[1].name: 'default' is already used by applications[0]: it must be unique.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "num_replica: 2",
            "mesh.yaml:5:9: applications[0].deployments[0].num_replica: no such field: did you mean num_replicas?",
        ),
        (
            "num_replicas: -1",
            "mesh.yaml:5:23: applications[0].deployments[0].num_replicas: must be at least 1, got -1.",
        ),
        ("num_replicas: many", "mesh.yaml:5:23: applications[0].deployments[0].num_replicas: must be an integer or "),
        ("max_ongoing_requests: 0", "mesh.yaml:5:31: applications[0].deployments[0].max_ongoing_requests: must be at"),
        ("max_queued_requests: 0", "mesh.yaml:5:30: applications[0].deployments[0].max_queued_requests: must be -1"),
        (
            "ray_actor_options: {num_cpus: lots}",
            "mesh.yaml:5:39: applications[0].deployments[0].ray_actor_options.num_cpus: must be a number, got 'lots'.",
        ),
        (
            "ray_actor_options: {num_cpu: 1}",
            "mesh.yaml:5:29: applications[0].deployments[0].ray_actor_options.num_cpu: no such field: did you mean "
            "num_cpus?",
        ),
        ("ray_actor_options: 1", "mesh.yaml:5:28: applications[0].deployments[0].ray_actor_options: must be a dict"),
        (
            "user_config: {since: 2026-01-01}",
            "mesh.yaml:5:22: applications[0].deployments[0].user_config: must be JSON-serializable: ",
        ),
        (
            "autoscaling_config: {min_replicas: 3, max_replicas: 1}",
            "mesh.yaml:5:61: applications[0].deployments[0].autoscaling_config.max_replicas: (1) must be at least "
            "min_replicas (3).",
        ),
        (
            "autoscaling_config: {max_replica: 1}",
            "mesh.yaml:5:30: applications[0].deployments[0].autoscaling_config.max_replica: no such field: did you "
            "mean max_replicas?",
        ),
        ("graceful_shutdown_timeout_s: .nan", "mesh.yaml:5:38: applications[0].deployments[0].graceful_shutdown_ti"),
        ("isolate_user_loop: 1", "mesh.yaml:5:28: applications[0].deployments[0].isolate_user_loop: must be True or"),
        ("version: v1", "mesh.yaml:5:9: applications[0].deployments[0].version: no such field: there are name, "),
    ],
)
def test_mistakes_in_a_deployment(text: str, expected: str) -> None:
    assert [line for line in mistakes(deployment(text)) if line.startswith(expected)]


def test_all_mistakes_are_reported_together_in_the_order_of_the_file() -> None:
    text = """
        http_options: {port: -1}
        applications:
          - import_path: shop
            deployments:
              - name: Front
                num_replicas: -1
                max_ongoing_requests: none
                colour: red
        """
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in mistakes(text)] == [
        "mesh.yaml:1:22 http_options.port",
        "mesh.yaml:3:18 applications[0].import_path",
        "mesh.yaml:6:23 applications[0].deployments[0].num_replicas",
        "mesh.yaml:7:31 applications[0].deployments[0].max_ongoing_requests",
        "mesh.yaml:8:9 applications[0].deployments[0].colour",
    ]


def test_an_application_may_have_an_autoscaling_policy() -> None:
    """A path, or a mapping with arguments (item 248)."""
    config = read("""
        applications:
          - name: one
            import_path: a:b
            autoscaling_policy: shop.scaling:decide
          - name: two
            route_prefix: /two
            import_path: a:b
            autoscaling_policy: {policy_function: shop.scaling:decide, policy_kwargs: {per_front: 2}}
    """)
    one, two = (each.autoscaling_policy for each in config.applications)
    assert one == "shop.scaling:decide"
    assert two == {"policy_function": "shop.scaling:decide", "policy_kwargs": {"per_front": 2}}


def test_a_mistake_in_the_policy_of_an_application_is_found() -> None:
    (mistake,) = mistakes("""
        applications:
          - import_path: a:b
            autoscaling_policy: decide
    """)
    assert mistake.startswith("mesh.yaml:3:25: applications[0].autoscaling_policy: policy must be an import path like")
