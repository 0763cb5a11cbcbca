"""mesh.declarative.template: the written file has what the code sets, shows the rest, and is valid."""

import textwrap

import mesh
from mesh.application import deployments_of
from mesh.config import DeploymentConfig, with_options
from mesh.declarative.config_file import read_config
from mesh.declarative.template import BuiltApplication, render


class Model:
    def __init__(self, *args: object) -> None: ...


SIMPLE = mesh.deployment(Model).options(name="Simple", max_ongoing_requests=9, user_config={"words": ["a", "b"]})
LOGGING = SIMPLE.options(
    name="Logging", logging_config={"encoding": "json", "additional_log_standard_attrs": ["thread"]}
)
SCALING = mesh.deployment(Model).options(
    name="Scaling",
    num_replicas="auto",
    autoscaling_config={"min_replicas": 2, "policy": {"policy_function": "json:dumps", "policy_kwargs": {"indent": 1}}},
)


def built(**changes: object) -> BuiltApplication:
    values = {
        "import_path": "shop.app:app",
        "name": "shop",
        "route_prefix": "/shop",
        "deployments": deployments_of(SIMPLE.bind(SCALING.bind(LOGGING.bind()))),
        "is_builder": False,
        "args": {},
        **changes,
    }
    return BuiltApplication(**values)  # type: ignore[arg-type]


def test_a_written_file_reads_as_the_code_is() -> None:
    (entry,) = read_config(render([built()], "mesh.yaml"), "mesh.yaml")[0].applications
    assert (entry.name, entry.route_prefix, entry.import_path) == ("shop", "/shop", "shop.app:app")
    for deployment in (SIMPLE, SCALING, LOGGING):
        assert with_options(DeploymentConfig(), entry.deployments[deployment.name]) == deployment.config


def test_what_the_code_leaves_alone_is_shown_as_a_comment() -> None:
    lines = render([built(deployments=deployments_of(SIMPLE.bind()))], "shop.yaml").splitlines()
    assert "`mesh deploy shop.yaml` applies it" in lines[0]
    start = lines.index("applications:")
    expected = """\
        applications:
          - name: shop
            route_prefix: /shop
            import_path: shop.app:app
            # runtime_env: {}
            deployments:
              - name: Simple
                user_config:
                  words:
                  - a
                  - b
                max_ongoing_requests: 9
                # num_replicas: 1
                # ray_actor_options: {num_cpus: 1}
        """
    assert lines[start : start + 14] == textwrap.dedent(expected).splitlines()
    assert "        # graceful_shutdown_timeout_s: 20.0" in lines


def test_comments_become_options_when_their_mark_is_taken_off() -> None:
    text = render([built()], None).replace("        # ", "        ").replace("    # runtime_env", "    runtime_env")
    (entry,) = read_config(text, "mesh.yaml")[0].applications
    assert entry.deployments["Simple"]["graceful_shutdown_timeout_s"] == 20.0


def test_arguments_of_a_builder_are_written() -> None:
    assert "    args:\n      size: '3'\n" in render([built(is_builder=True, args={"size": "3"})], None)
    assert "    # args: {}  # for the function that builds the application\n" in render([built(is_builder=True)], None)
