"""mesh.deployment: the decorator, `.bind` and `.options` (items 75, 77–94)."""

import functools
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pytest

from mesh.deployment import Application, Deployment, deployment
from mesh.options.logging_options import LoggingConfig

T = TypeVar("T")


class Model:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args


def echo(value: object) -> object:
    return value


@pytest.mark.parametrize("decorate", [deployment, deployment(), deployment(num_replicas=1)])
@pytest.mark.parametrize("target", [Model, echo])
def test_usable_bare_and_with_parentheses(
    decorate: Callable[[Callable[..., Any]], Deployment], target: Callable[..., Any]
) -> None:
    """All three ways to decorate give the same deployment (item 77)."""
    made = decorate(target)
    assert isinstance(made, Deployment)
    assert made.func_or_class is target
    assert made.name == target.__name__


def test_a_string_in_the_place_of_the_class_is_ignored() -> None:
    """The name stays that of the class (item 77)."""
    made = deployment("counter", num_replicas=2)(Model)
    assert (made.name, made.num_replicas) == ("Model", 2)


@pytest.mark.parametrize("target", [3, [Model], deployment(Model)])
def test_only_classes_and_functions_can_be_deployed(target: Any) -> None:
    """Other objects raise TypeError (item 77)."""
    with pytest.raises(TypeError, match="takes a class or a function"):
        deployment(target)


def test_options_are_checked_at_decoration() -> None:
    """Wrong and unknown options raise at once (items 78, 80)."""
    with pytest.raises(ValueError, match="num_replicas"):
        deployment(num_replicas=0)(Model)
    with pytest.raises(TypeError, match="replicas"):
        deployment(replicas=1)(Model)  # type: ignore[call-overload]


def test_a_route_prefix_belongs_to_the_run() -> None:
    """The decorator refuses a route prefix (C3)."""
    with pytest.raises(ValueError, match="can no longer be specified at the deployment level"):
        deployment(route_prefix="/x")(Model)


def test_a_version_is_accepted_with_a_warning() -> None:
    """A version is kept, with a DeprecationWarning (C2)."""
    with pytest.warns(DeprecationWarning, match="version"):
        made = deployment(version="v1")(Model)
    assert made.version == "v1"


def test_a_strict_filter_of_warnings_refuses_a_version() -> None:
    """As newer releases of the original do (C2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        with pytest.raises(DeprecationWarning, match="version= of a deployment is deprecated"):
            deployment(version="v1")(Model)


def test_without_a_version_nothing_warns() -> None:
    """It is None then (D8)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert deployment(Model).version is None


@pytest.mark.parametrize(("name", "error"), [("a#b", ValueError), ("", ValueError), (3, TypeError)])
def test_names_are_checked(name: Any, error: type[Exception]) -> None:
    """A name is a string, not empty and without '#' (item 94)."""
    with pytest.raises(error):
        deployment(name=name)(Model)


def test_code_that_cannot_be_pickled_is_found_at_decoration() -> None:
    """The error says what cannot be pickled (item 75)."""
    lock = threading.Lock()

    def locked() -> object:
        return lock

    with pytest.raises(TypeError, match=r"The locked cannot be pickled.*lock"):
        deployment(locked)


def test_a_deployment_is_made_by_the_decorator_only() -> None:
    """The constructor is not for users (item 90)."""
    with pytest.raises(RuntimeError, match="decorator"):
        Deployment(Model)


def test_a_deployment_cannot_be_called_like_its_class() -> None:
    """The error advises `.bind()` (item 90)."""
    with pytest.raises(RuntimeError, match=r"\.bind"):
        deployment(Model)()


def test_bind_keeps_the_arguments() -> None:
    """`.bind()` gives an application with its arguments (item 96)."""
    app = deployment(Model).bind(1, key=2)
    assert isinstance(app, Application)
    assert (app.args, app.kwargs) == ((1,), {"key": 2})


def test_bind_takes_what_the_constructor_takes() -> None:
    """Other arguments raise TypeError at once, not in the replica (item 96)."""

    class Sized:
        def __init__(self, size: int) -> None:
            self.size = size

    assert deployment(Sized).bind(size=1).kwargs == {"size": 1}
    for wrong in (lambda: deployment(Sized).bind(), lambda: deployment(Sized).bind(1, 2)):
        with pytest.raises(TypeError, match=r"Sized\.bind\(\): .* The constructor takes \(size\)\."):
            wrong()


def test_bind_takes_what_a_decorator_lets_the_constructor_take() -> None:
    """A wrapper may give arguments of its own to what it wraps."""

    def injected(constructor: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(constructor)
        def construct(*args: Any, **kwargs: Any) -> None:
            constructor(*args, database="db", **kwargs)

        return construct

    class Injected:
        @injected
        def __init__(self, size: int, database: str) -> None:
            self.size, self.database = size, database

    assert deployment(Injected).bind(3).args == (3,)
    assert deployment(dict).bind(a=1).kwargs == {"a": 1}


def test_functions_take_no_constructor_arguments() -> None:
    """A function has no constructor to pass them to (item 89)."""
    made = deployment(echo)
    assert made.bind().args == ()
    with pytest.raises(ValueError, match="takes no arguments"):
        made.bind(1)


def test_an_application_has_no_remote() -> None:
    """An application is not a handle (item 93)."""
    with pytest.raises(AttributeError, match=r"^'Application' object has no attribute 'remote': .* mesh.run"):
        deployment(Model).bind().remote()  # type: ignore[attr-defined]


def test_options_make_a_new_deployment_and_keep_the_rest() -> None:
    """The original does not change (item 91)."""
    first = deployment(num_replicas=3, user_config={"a": 1})(Model)
    second = first.options(name="Other", num_replicas=2)
    assert (first.name, first.num_replicas) == ("Model", 3)
    assert (second.name, second.num_replicas, second.user_config) == ("Other", 2, {"a": 1})


def test_options_are_checked_like_the_decorator_s() -> None:
    """`.options()` has the checks of the decorator (item 91)."""
    with pytest.raises(ValueError, match="max_queued_requests"):
        deployment(Model).options(max_queued_requests=0)


def test_user_configured_names_are_exactly_those_passed() -> None:
    """Names given in several steps add up (item 91)."""
    first = deployment(num_replicas=1)(Model)
    assert first.user_configured_option_names == {"num_replicas"}
    assert first.options(max_ongoing_requests=9).user_configured_option_names == {
        "num_replicas",
        "max_ongoing_requests",
    }


def test_properties_are_read_only() -> None:
    """Options can be read but not assigned (item 92)."""
    made = deployment(
        ray_actor_options={"num_cpus": 2}, max_queued_requests=4, backpressure_config={"status_code": 429}
    )(Model)
    assert (made.max_ongoing_requests, made.max_queued_requests) == (5, 4)
    assert made.backpressure_config is not None
    assert made.backpressure_config.status_code == 429
    assert made.ray_actor_options == {"num_cpus": 2}
    with pytest.raises(AttributeError):
        made.name = "other"  # type: ignore[misc]


def test_what_belongs_to_a_run_or_an_application_reads_as_nothing() -> None:
    """Code that reads `route_prefix` and the bound arguments of a deployment goes on (item 92)."""
    made = deployment(logging_config={"log_level": "DEBUG"})(Model)
    assert made.logging_config == LoggingConfig(log_level="DEBUG")
    assert deployment(Model).logging_config is None
    assert (made.route_prefix, made.init_args, made.init_kwargs) == (None, (), {})  # type: ignore[func-returns-value]
    application = made.bind()
    assert (application.args, application.kwargs) == ((), {})


def test_equality_compares_the_options() -> None:
    """Deployments with equal options are equal (item 92)."""
    assert deployment(Model) == deployment(Model)
    assert deployment(Model) != deployment(Model).options(num_replicas=2)
    assert deployment(Model) != "Model"
    assert hash(deployment(Model)) == hash(deployment(Model))


def test_it_shows_its_name() -> None:
    """Its text is its name (item 92)."""
    assert str(deployment(Model)) == repr(deployment(Model)) == "Deployment(name=Model)"


def test_a_deployment_survives_pickling() -> None:
    made = deployment(num_replicas=2)(Model)
    assert pickle.loads(pickle.dumps(made)) == made


class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


def test_a_generic_class_may_be_deployed_with_its_types() -> None:
    """They mean nothing to a replica (items 20, 77)."""
    boxes = deployment(Box[int])
    assert (boxes.name, boxes.func_or_class) == ("Box", Box)
    assert isinstance(boxes.bind(7), Application)


def test_a_class_does_not_derive_from_a_deployment() -> None:
    """The error names the class to derive from (item 77)."""
    with pytest.raises(TypeError, match=r"Model is a deployment, not a class. .*: Model\.func_or_class"):

        class Derived(deployment(Model)):  # type: ignore[misc]
            pass

    class FromTheClass(deployment(Model).func_or_class):  # type: ignore[misc]
        pass

    assert deployment(FromTheClass).name == "FromTheClass"
