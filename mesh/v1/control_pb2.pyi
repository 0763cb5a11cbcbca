from mesh.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_MEAN: _ClassVar[Aggregation]
    AGGREGATION_MAX: _ClassVar[Aggregation]
    AGGREGATION_MIN: _ClassVar[Aggregation]

class Deployer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPLOYER_PROGRAM: _ClassVar[Deployer]
    DEPLOYER_FILE: _ClassVar[Deployer]
    DEPLOYER_RUN: _ClassVar[Deployer]

class GatewayLocation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GATEWAY_LOCATION_EVERY_NODE: _ClassVar[GatewayLocation]
    GATEWAY_LOCATION_HEAD_ONLY: _ClassVar[GatewayLocation]
    GATEWAY_LOCATION_DISABLED: _ClassVar[GatewayLocation]

class ProcessKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESS_KIND_CALLER: _ClassVar[ProcessKind]
    PROCESS_KIND_REPLICA: _ClassVar[ProcessKind]
    PROCESS_KIND_GATEWAY: _ClassVar[ProcessKind]
    PROCESS_KIND_CONTROLLER: _ClassVar[ProcessKind]
AGGREGATION_MEAN: Aggregation
AGGREGATION_MAX: Aggregation
AGGREGATION_MIN: Aggregation
DEPLOYER_PROGRAM: Deployer
DEPLOYER_FILE: Deployer
DEPLOYER_RUN: Deployer
GATEWAY_LOCATION_EVERY_NODE: GatewayLocation
GATEWAY_LOCATION_HEAD_ONLY: GatewayLocation
GATEWAY_LOCATION_DISABLED: GatewayLocation
PROCESS_KIND_CALLER: ProcessKind
PROCESS_KIND_REPLICA: ProcessKind
PROCESS_KIND_GATEWAY: ProcessKind
PROCESS_KIND_CONTROLLER: ProcessKind

class GrpcMethod(_message.Message):
    __slots__ = ("full_name", "streams_request", "streams_response", "is_idempotent", "model_id_fields", "serving_order")
    FULL_NAME_FIELD_NUMBER: _ClassVar[int]
    STREAMS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    STREAMS_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    IS_IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELDS_FIELD_NUMBER: _ClassVar[int]
    SERVING_ORDER_FIELD_NUMBER: _ClassVar[int]
    full_name: str
    streams_request: bool
    streams_response: bool
    is_idempotent: bool
    model_id_fields: _containers.RepeatedScalarFieldContainer[int]
    serving_order: int
    def __init__(self, full_name: _Optional[str] = ..., streams_request: bool = ..., streams_response: bool = ..., is_idempotent: bool = ..., model_id_fields: _Optional[_Iterable[int]] = ..., serving_order: _Optional[int] = ...) -> None: ...

class ActorOptions(_message.Message):
    __slots__ = ("num_cpus", "num_gpus", "memory_bytes", "resources", "accelerator_type", "runtime_env_json")
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NUM_CPUS_FIELD_NUMBER: _ClassVar[int]
    NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_ENV_JSON_FIELD_NUMBER: _ClassVar[int]
    num_cpus: float
    num_gpus: float
    memory_bytes: int
    resources: _containers.ScalarMap[str, float]
    accelerator_type: str
    runtime_env_json: str
    def __init__(self, num_cpus: _Optional[float] = ..., num_gpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., resources: _Optional[_Mapping[str, float]] = ..., accelerator_type: _Optional[str] = ..., runtime_env_json: _Optional[str] = ...) -> None: ...

class AutoscalingPolicy(_message.Message):
    __slots__ = ("function", "kwargs_json", "timeout_s", "is_of_application", "source_digest")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    IS_OF_APPLICATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    function: str
    kwargs_json: str
    timeout_s: float
    is_of_application: bool
    source_digest: str
    def __init__(self, function: _Optional[str] = ..., kwargs_json: _Optional[str] = ..., timeout_s: _Optional[float] = ..., is_of_application: bool = ..., source_digest: _Optional[str] = ...) -> None: ...

class AutoscalingOptions(_message.Message):
    __slots__ = ("min_replicas", "max_replicas", "initial_replicas", "target_ongoing_requests", "metrics_interval_s", "look_back_period_s", "upscaling_factor", "downscaling_factor", "upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s", "aggregation", "policy", "is_external")
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    LOOK_BACK_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    UPSCALING_FACTOR_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALING_FACTOR_FIELD_NUMBER: _ClassVar[int]
    UPSCALE_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALE_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    DOWNSCALE_TO_ZERO_DELAY_S_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    IS_EXTERNAL_FIELD_NUMBER: _ClassVar[int]
    min_replicas: int
    max_replicas: int
    initial_replicas: int
    target_ongoing_requests: float
    metrics_interval_s: float
    look_back_period_s: float
    upscaling_factor: float
    downscaling_factor: float
    upscale_delay_s: float
    downscale_delay_s: float
    downscale_to_zero_delay_s: float
    aggregation: Aggregation
    policy: AutoscalingPolicy
    is_external: bool
    def __init__(self, min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., initial_replicas: _Optional[int] = ..., target_ongoing_requests: _Optional[float] = ..., metrics_interval_s: _Optional[float] = ..., look_back_period_s: _Optional[float] = ..., upscaling_factor: _Optional[float] = ..., downscaling_factor: _Optional[float] = ..., upscale_delay_s: _Optional[float] = ..., downscale_delay_s: _Optional[float] = ..., downscale_to_zero_delay_s: _Optional[float] = ..., aggregation: _Optional[_Union[Aggregation, str]] = ..., policy: _Optional[_Union[AutoscalingPolicy, _Mapping]] = ..., is_external: bool = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("resources",)
    class ResourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.ScalarMap[str, float]
    def __init__(self, resources: _Optional[_Mapping[str, float]] = ...) -> None: ...

class LoggingOptions(_message.Message):
    __slots__ = ("is_json", "level", "directory", "has_access_log", "additional_attributes")
    IS_JSON_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    HAS_ACCESS_LOG_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    is_json: bool
    level: int
    directory: str
    has_access_log: bool
    additional_attributes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, is_json: bool = ..., level: _Optional[int] = ..., directory: _Optional[str] = ..., has_access_log: bool = ..., additional_attributes: _Optional[_Iterable[str]] = ...) -> None: ...

class TracingOptions(_message.Message):
    __slots__ = ("is_enabled", "exporter_import_path", "sampling_ratio")
    IS_ENABLED_FIELD_NUMBER: _ClassVar[int]
    EXPORTER_IMPORT_PATH_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_RATIO_FIELD_NUMBER: _ClassVar[int]
    is_enabled: bool
    exporter_import_path: str
    sampling_ratio: float
    def __init__(self, is_enabled: bool = ..., exporter_import_path: _Optional[str] = ..., sampling_ratio: _Optional[float] = ...) -> None: ...

class DeploymentOptions(_message.Message):
    __slots__ = ("num_replicas", "max_ongoing_requests", "max_queued_requests", "queue_timeout_s", "graceful_shutdown_wait_loop_s", "graceful_shutdown_timeout_s", "health_check_period_s", "health_check_timeout_s", "user_config_json", "isolate_user_loop", "actor", "max_constructor_retry_count", "autoscaling", "placement_group_bundles", "placement_group_strategy", "max_replicas_per_node", "logging", "min_ready_s", "progress_deadline_s", "backpressure", "max_surge_percent", "max_unavailable_percent", "rollback_on_failure", "request_router")
    NUM_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_SHUTDOWN_WAIT_LOOP_S_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_SHUTDOWN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    USER_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    ISOLATE_USER_LOOP_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_CONSTRUCTOR_RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_GROUP_BUNDLES_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_GROUP_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    LOGGING_FIELD_NUMBER: _ClassVar[int]
    MIN_READY_S_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_FIELD_NUMBER: _ClassVar[int]
    MAX_SURGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MAX_UNAVAILABLE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ROUTER_FIELD_NUMBER: _ClassVar[int]
    num_replicas: int
    max_ongoing_requests: int
    max_queued_requests: int
    queue_timeout_s: float
    graceful_shutdown_wait_loop_s: float
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    user_config_json: str
    isolate_user_loop: bool
    actor: ActorOptions
    max_constructor_retry_count: int
    autoscaling: AutoscalingOptions
    placement_group_bundles: _containers.RepeatedCompositeFieldContainer[Bundle]
    placement_group_strategy: str
    max_replicas_per_node: int
    logging: LoggingOptions
    min_ready_s: float
    progress_deadline_s: float
    backpressure: _common_pb2.BackpressureAnswer
    max_surge_percent: float
    max_unavailable_percent: float
    rollback_on_failure: bool
    request_router: RequestRouter
    def __init__(self, num_replicas: _Optional[int] = ..., max_ongoing_requests: _Optional[int] = ..., max_queued_requests: _Optional[int] = ..., queue_timeout_s: _Optional[float] = ..., graceful_shutdown_wait_loop_s: _Optional[float] = ..., graceful_shutdown_timeout_s: _Optional[float] = ..., health_check_period_s: _Optional[float] = ..., health_check_timeout_s: _Optional[float] = ..., user_config_json: _Optional[str] = ..., isolate_user_loop: bool = ..., actor: _Optional[_Union[ActorOptions, _Mapping]] = ..., max_constructor_retry_count: _Optional[int] = ..., autoscaling: _Optional[_Union[AutoscalingOptions, _Mapping]] = ..., placement_group_bundles: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ..., placement_group_strategy: _Optional[str] = ..., max_replicas_per_node: _Optional[int] = ..., logging: _Optional[_Union[LoggingOptions, _Mapping]] = ..., min_ready_s: _Optional[float] = ..., progress_deadline_s: _Optional[float] = ..., backpressure: _Optional[_Union[_common_pb2.BackpressureAnswer, _Mapping]] = ..., max_surge_percent: _Optional[float] = ..., max_unavailable_percent: _Optional[float] = ..., rollback_on_failure: bool = ..., request_router: _Optional[_Union[RequestRouter, _Mapping]] = ...) -> None: ...

class DeploymentSpec(_message.Message):
    __slots__ = ("name", "version", "options", "code", "code_key", "grpc_methods", "callees", "serves_web", "docs_path", "has_run", "is_proven", "model_id_paths", "is_paused", "was_proven")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CODE_KEY_FIELD_NUMBER: _ClassVar[int]
    GRPC_METHODS_FIELD_NUMBER: _ClassVar[int]
    CALLEES_FIELD_NUMBER: _ClassVar[int]
    SERVES_WEB_FIELD_NUMBER: _ClassVar[int]
    DOCS_PATH_FIELD_NUMBER: _ClassVar[int]
    HAS_RUN_FIELD_NUMBER: _ClassVar[int]
    IS_PROVEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_PATHS_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    WAS_PROVEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    options: DeploymentOptions
    code: bytes
    code_key: str
    grpc_methods: _containers.RepeatedCompositeFieldContainer[GrpcMethod]
    callees: _containers.RepeatedScalarFieldContainer[str]
    serves_web: bool
    docs_path: str
    has_run: bool
    is_proven: bool
    model_id_paths: _containers.RepeatedScalarFieldContainer[str]
    is_paused: bool
    was_proven: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., options: _Optional[_Union[DeploymentOptions, _Mapping]] = ..., code: _Optional[bytes] = ..., code_key: _Optional[str] = ..., grpc_methods: _Optional[_Iterable[_Union[GrpcMethod, _Mapping]]] = ..., callees: _Optional[_Iterable[str]] = ..., serves_web: bool = ..., docs_path: _Optional[str] = ..., has_run: bool = ..., is_proven: bool = ..., model_id_paths: _Optional[_Iterable[str]] = ..., is_paused: bool = ..., was_proven: bool = ...) -> None: ...

class ApplicationSpec(_message.Message):
    __slots__ = ("name", "route_prefix", "ingress", "deployments", "last_deployed_time_s", "deployer", "run_id", "descriptors", "descriptors_digest", "config_name", "rolled_back_because", "traffic", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_DEPLOYED_TIME_S_FIELD_NUMBER: _ClassVar[int]
    DEPLOYER_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONFIG_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    route_prefix: str
    ingress: str
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentSpec]
    last_deployed_time_s: float
    deployer: Deployer
    run_id: str
    descriptors: bytes
    descriptors_digest: str
    config_name: str
    rolled_back_because: str
    traffic: TrafficRule
    revision: int
    def __init__(self, name: _Optional[str] = ..., route_prefix: _Optional[str] = ..., ingress: _Optional[str] = ..., deployments: _Optional[_Iterable[_Union[DeploymentSpec, _Mapping]]] = ..., last_deployed_time_s: _Optional[float] = ..., deployer: _Optional[_Union[Deployer, str]] = ..., run_id: _Optional[str] = ..., descriptors: _Optional[bytes] = ..., descriptors_digest: _Optional[str] = ..., config_name: _Optional[str] = ..., rolled_back_because: _Optional[str] = ..., traffic: _Optional[_Union[TrafficRule, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class TrafficRule(_message.Message):
    __slots__ = ("percent", "header", "value")
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    percent: float
    header: str
    value: str
    def __init__(self, percent: _Optional[float] = ..., header: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class GatewayOptions(_message.Message):
    __slots__ = ("location", "grpc_host", "grpc_port", "http_host", "http_port", "max_message_bytes", "request_timeout_s", "logging", "max_connection_age_s", "max_connection_age_grace_s", "max_connection_idle_s", "keepalive_s", "keepalive_timeout_s", "processes", "http_keep_alive_timeout_s", "http_root_path", "http_request_timeout_s", "has_reflection", "grpc_tls", "http_tls", "authentication", "identity_limits", "method_limits", "cors", "retry", "hedge", "tracing", "controller_options")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    GRPC_HOST_FIELD_NUMBER: _ClassVar[int]
    GRPC_PORT_FIELD_NUMBER: _ClassVar[int]
    HTTP_HOST_FIELD_NUMBER: _ClassVar[int]
    HTTP_PORT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    LOGGING_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_AGE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_AGE_GRACE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_IDLE_S_FIELD_NUMBER: _ClassVar[int]
    KEEPALIVE_S_FIELD_NUMBER: _ClassVar[int]
    KEEPALIVE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    HTTP_KEEP_ALIVE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    HTTP_ROOT_PATH_FIELD_NUMBER: _ClassVar[int]
    HTTP_REQUEST_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    HAS_REFLECTION_FIELD_NUMBER: _ClassVar[int]
    GRPC_TLS_FIELD_NUMBER: _ClassVar[int]
    HTTP_TLS_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_LIMITS_FIELD_NUMBER: _ClassVar[int]
    METHOD_LIMITS_FIELD_NUMBER: _ClassVar[int]
    CORS_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    HEDGE_FIELD_NUMBER: _ClassVar[int]
    TRACING_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    location: GatewayLocation
    grpc_host: str
    grpc_port: int
    http_host: str
    http_port: int
    max_message_bytes: int
    request_timeout_s: float
    logging: LoggingOptions
    max_connection_age_s: float
    max_connection_age_grace_s: float
    max_connection_idle_s: float
    keepalive_s: float
    keepalive_timeout_s: float
    processes: int
    http_keep_alive_timeout_s: float
    http_root_path: str
    http_request_timeout_s: float
    has_reflection: bool
    grpc_tls: TlsFiles
    http_tls: TlsFiles
    authentication: AuthenticationOptions
    identity_limits: _containers.RepeatedCompositeFieldContainer[CallLimit]
    method_limits: _containers.RepeatedCompositeFieldContainer[CallLimit]
    cors: CorsOptions
    retry: RetryOptions
    hedge: HedgeOptions
    tracing: TracingOptions
    controller_options: str
    def __init__(self, location: _Optional[_Union[GatewayLocation, str]] = ..., grpc_host: _Optional[str] = ..., grpc_port: _Optional[int] = ..., http_host: _Optional[str] = ..., http_port: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., request_timeout_s: _Optional[float] = ..., logging: _Optional[_Union[LoggingOptions, _Mapping]] = ..., max_connection_age_s: _Optional[float] = ..., max_connection_age_grace_s: _Optional[float] = ..., max_connection_idle_s: _Optional[float] = ..., keepalive_s: _Optional[float] = ..., keepalive_timeout_s: _Optional[float] = ..., processes: _Optional[int] = ..., http_keep_alive_timeout_s: _Optional[float] = ..., http_root_path: _Optional[str] = ..., http_request_timeout_s: _Optional[float] = ..., has_reflection: bool = ..., grpc_tls: _Optional[_Union[TlsFiles, _Mapping]] = ..., http_tls: _Optional[_Union[TlsFiles, _Mapping]] = ..., authentication: _Optional[_Union[AuthenticationOptions, _Mapping]] = ..., identity_limits: _Optional[_Iterable[_Union[CallLimit, _Mapping]]] = ..., method_limits: _Optional[_Iterable[_Union[CallLimit, _Mapping]]] = ..., cors: _Optional[_Union[CorsOptions, _Mapping]] = ..., retry: _Optional[_Union[RetryOptions, _Mapping]] = ..., hedge: _Optional[_Union[HedgeOptions, _Mapping]] = ..., tracing: _Optional[_Union[TracingOptions, _Mapping]] = ..., controller_options: _Optional[str] = ...) -> None: ...

class GatewayRevision(_message.Message):
    __slots__ = ("options", "number")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    options: GatewayOptions
    number: int
    def __init__(self, options: _Optional[_Union[GatewayOptions, _Mapping]] = ..., number: _Optional[int] = ...) -> None: ...

class RetryOptions(_message.Message):
    __slots__ = ("attempts", "codes", "budget")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    attempts: int
    codes: _containers.RepeatedScalarFieldContainer[int]
    budget: float
    def __init__(self, attempts: _Optional[int] = ..., codes: _Optional[_Iterable[int]] = ..., budget: _Optional[float] = ...) -> None: ...

class HedgeOptions(_message.Message):
    __slots__ = ("delay_s", "percentile")
    DELAY_S_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    delay_s: float
    percentile: int
    def __init__(self, delay_s: _Optional[float] = ..., percentile: _Optional[int] = ...) -> None: ...

class CorsOptions(_message.Message):
    __slots__ = ("origins", "methods", "headers", "has_credentials", "max_age_s")
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    HAS_CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_S_FIELD_NUMBER: _ClassVar[int]
    origins: _containers.RepeatedScalarFieldContainer[str]
    methods: _containers.RepeatedScalarFieldContainer[str]
    headers: _containers.RepeatedScalarFieldContainer[str]
    has_credentials: bool
    max_age_s: int
    def __init__(self, origins: _Optional[_Iterable[str]] = ..., methods: _Optional[_Iterable[str]] = ..., headers: _Optional[_Iterable[str]] = ..., has_credentials: bool = ..., max_age_s: _Optional[int] = ...) -> None: ...

class TlsFiles(_message.Message):
    __slots__ = ("certfile", "keyfile", "keyfile_password_source", "ca_certs", "is_client_certificate_optional")
    CERTFILE_FIELD_NUMBER: _ClassVar[int]
    KEYFILE_FIELD_NUMBER: _ClassVar[int]
    KEYFILE_PASSWORD_SOURCE_FIELD_NUMBER: _ClassVar[int]
    CA_CERTS_FIELD_NUMBER: _ClassVar[int]
    IS_CLIENT_CERTIFICATE_OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    certfile: str
    keyfile: str
    keyfile_password_source: str
    ca_certs: str
    is_client_certificate_optional: bool
    def __init__(self, certfile: _Optional[str] = ..., keyfile: _Optional[str] = ..., keyfile_password_source: _Optional[str] = ..., ca_certs: _Optional[str] = ..., is_client_certificate_optional: bool = ...) -> None: ...

class AuthenticationOptions(_message.Message):
    __slots__ = ("keys_file", "jwt", "accepts_certificates", "function", "timeout_s", "concurrent_max", "open_paths")
    KEYS_FILE_FIELD_NUMBER: _ClassVar[int]
    JWT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_MAX_FIELD_NUMBER: _ClassVar[int]
    OPEN_PATHS_FIELD_NUMBER: _ClassVar[int]
    keys_file: str
    jwt: JwtOptions
    accepts_certificates: bool
    function: str
    timeout_s: float
    concurrent_max: int
    open_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, keys_file: _Optional[str] = ..., jwt: _Optional[_Union[JwtOptions, _Mapping]] = ..., accepts_certificates: bool = ..., function: _Optional[str] = ..., timeout_s: _Optional[float] = ..., concurrent_max: _Optional[int] = ..., open_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class JwtOptions(_message.Message):
    __slots__ = ("keys_file", "algorithms", "issuer", "audience", "leeway_s", "name_claim")
    KEYS_FILE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHMS_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    LEEWAY_S_FIELD_NUMBER: _ClassVar[int]
    NAME_CLAIM_FIELD_NUMBER: _ClassVar[int]
    keys_file: str
    algorithms: _containers.RepeatedScalarFieldContainer[str]
    issuer: str
    audience: _containers.RepeatedScalarFieldContainer[str]
    leeway_s: float
    name_claim: str
    def __init__(self, keys_file: _Optional[str] = ..., algorithms: _Optional[_Iterable[str]] = ..., issuer: _Optional[str] = ..., audience: _Optional[_Iterable[str]] = ..., leeway_s: _Optional[float] = ..., name_claim: _Optional[str] = ...) -> None: ...

class CallLimit(_message.Message):
    __slots__ = ("key", "rate_per_s", "burst", "concurrent_max")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RATE_PER_S_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_MAX_FIELD_NUMBER: _ClassVar[int]
    key: str
    rate_per_s: float
    burst: float
    concurrent_max: int
    def __init__(self, key: _Optional[str] = ..., rate_per_s: _Optional[float] = ..., burst: _Optional[float] = ..., concurrent_max: _Optional[int] = ...) -> None: ...

class DesiredState(_message.Message):
    __slots__ = ("version", "gateways", "applications", "is_shutting_down", "config_file", "target_capacity", "predecessors", "applied_requests", "proven_before", "history", "canaries", "schema_version", "cordons", "gateways_revision", "gateways_before", "gateways_revision_max")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_FIELD_NUMBER: _ClassVar[int]
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    IS_SHUTTING_DOWN_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FILE_FIELD_NUMBER: _ClassVar[int]
    TARGET_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    PREDECESSORS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    PROVEN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    CANARIES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    CORDONS_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_REVISION_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_REVISION_MAX_FIELD_NUMBER: _ClassVar[int]
    version: int
    gateways: GatewayOptions
    applications: _containers.RepeatedCompositeFieldContainer[ApplicationSpec]
    is_shutting_down: bool
    config_file: str
    target_capacity: float
    predecessors: _containers.RepeatedCompositeFieldContainer[ApplicationSpec]
    applied_requests: _containers.RepeatedScalarFieldContainer[str]
    proven_before: _containers.RepeatedCompositeFieldContainer[ApplicationSpec]
    history: _containers.RepeatedCompositeFieldContainer[DeployRecord]
    canaries: _containers.RepeatedCompositeFieldContainer[ApplicationSpec]
    schema_version: int
    cordons: _containers.RepeatedCompositeFieldContainer[Cordon]
    gateways_revision: int
    gateways_before: GatewayRevision
    gateways_revision_max: int
    def __init__(self, version: _Optional[int] = ..., gateways: _Optional[_Union[GatewayOptions, _Mapping]] = ..., applications: _Optional[_Iterable[_Union[ApplicationSpec, _Mapping]]] = ..., is_shutting_down: bool = ..., config_file: _Optional[str] = ..., target_capacity: _Optional[float] = ..., predecessors: _Optional[_Iterable[_Union[ApplicationSpec, _Mapping]]] = ..., applied_requests: _Optional[_Iterable[str]] = ..., proven_before: _Optional[_Iterable[_Union[ApplicationSpec, _Mapping]]] = ..., history: _Optional[_Iterable[_Union[DeployRecord, _Mapping]]] = ..., canaries: _Optional[_Iterable[_Union[ApplicationSpec, _Mapping]]] = ..., schema_version: _Optional[int] = ..., cordons: _Optional[_Iterable[_Union[Cordon, _Mapping]]] = ..., gateways_revision: _Optional[int] = ..., gateways_before: _Optional[_Union[GatewayRevision, _Mapping]] = ..., gateways_revision_max: _Optional[int] = ...) -> None: ...

class Cordon(_message.Message):
    __slots__ = ("node_id", "unix_time_s", "author", "is_draining", "replicas", "is_drained")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINED_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    unix_time_s: float
    author: str
    is_draining: bool
    replicas: int
    is_drained: bool
    def __init__(self, node_id: _Optional[str] = ..., unix_time_s: _Optional[float] = ..., author: _Optional[str] = ..., is_draining: bool = ..., replicas: _Optional[int] = ..., is_drained: bool = ...) -> None: ...

class AutoscaledNumbers(_message.Message):
    __slots__ = ("state_version", "numbers")
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    state_version: int
    numbers: _containers.RepeatedCompositeFieldContainer[AutoscaledNumber]
    def __init__(self, state_version: _Optional[int] = ..., numbers: _Optional[_Iterable[_Union[AutoscaledNumber, _Mapping]]] = ...) -> None: ...

class AutoscaledNumber(_message.Message):
    __slots__ = ("deployment", "num_replicas")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    NUM_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    deployment: _common_pb2.DeploymentId
    num_replicas: int
    def __init__(self, deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., num_replicas: _Optional[int] = ...) -> None: ...

class DeployRecord(_message.Message):
    __slots__ = ("application", "unix_time_s", "author", "deployer", "is_rollback", "lines", "is_scaling", "rolled_back_because", "revision", "is_restore")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    DEPLOYER_FIELD_NUMBER: _ClassVar[int]
    IS_ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    IS_SCALING_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_RESTORE_FIELD_NUMBER: _ClassVar[int]
    application: str
    unix_time_s: float
    author: str
    deployer: Deployer
    is_rollback: bool
    lines: _containers.RepeatedScalarFieldContainer[str]
    is_scaling: bool
    rolled_back_because: str
    revision: int
    is_restore: bool
    def __init__(self, application: _Optional[str] = ..., unix_time_s: _Optional[float] = ..., author: _Optional[str] = ..., deployer: _Optional[_Union[Deployer, str]] = ..., is_rollback: bool = ..., lines: _Optional[_Iterable[str]] = ..., is_scaling: bool = ..., rolled_back_because: _Optional[str] = ..., revision: _Optional[int] = ..., is_restore: bool = ...) -> None: ...

class ReplicaSpec(_message.Message):
    __slots__ = ("replica_id", "deployment", "spec", "config_version", "mesh_logging", "mesh_tracing")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    MESH_LOGGING_FIELD_NUMBER: _ClassVar[int]
    MESH_TRACING_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    deployment: _common_pb2.DeploymentId
    spec: DeploymentSpec
    config_version: str
    mesh_logging: LoggingOptions
    mesh_tracing: TracingOptions
    def __init__(self, replica_id: _Optional[str] = ..., deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., config_version: _Optional[str] = ..., mesh_logging: _Optional[_Union[LoggingOptions, _Mapping]] = ..., mesh_tracing: _Optional[_Union[TracingOptions, _Mapping]] = ...) -> None: ...

class ReplicaReady(_message.Message):
    __slots__ = ("replica_id", "deployment", "version", "address", "node_id", "zone", "pid", "config_version", "is_draining", "bundle_node_ids", "spec", "age_s", "rejected_config_version", "rejection", "serving_s", "not_ready", "checks_ready")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    REJECTED_CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    SERVING_S_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    CHECKS_READY_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    deployment: _common_pb2.DeploymentId
    version: str
    address: str
    node_id: str
    zone: str
    pid: int
    config_version: str
    is_draining: bool
    bundle_node_ids: _containers.RepeatedScalarFieldContainer[str]
    spec: DeploymentSpec
    age_s: float
    rejected_config_version: str
    rejection: str
    serving_s: float
    not_ready: str
    checks_ready: bool
    def __init__(self, replica_id: _Optional[str] = ..., deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., node_id: _Optional[str] = ..., zone: _Optional[str] = ..., pid: _Optional[int] = ..., config_version: _Optional[str] = ..., is_draining: bool = ..., bundle_node_ids: _Optional[_Iterable[str]] = ..., spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., age_s: _Optional[float] = ..., rejected_config_version: _Optional[str] = ..., rejection: _Optional[str] = ..., serving_s: _Optional[float] = ..., not_ready: _Optional[str] = ..., checks_ready: bool = ...) -> None: ...

class PolicySpec(_message.Message):
    __slots__ = ("deployment", "policy", "code_key")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    CODE_KEY_FIELD_NUMBER: _ClassVar[int]
    deployment: _common_pb2.DeploymentId
    policy: AutoscalingPolicy
    code_key: str
    def __init__(self, deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., policy: _Optional[_Union[AutoscalingPolicy, _Mapping]] = ..., code_key: _Optional[str] = ...) -> None: ...

class ReplicaStats(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, float]
    def __init__(self, values: _Optional[_Mapping[str, float]] = ...) -> None: ...

class PolicyQuestion(_message.Message):
    __slots__ = ("deployment", "running_replicas", "target_replicas", "queued_requests", "ongoing_requests", "average_requests", "max_requests", "min_requests", "options", "since_last_decision_s", "replica_stats")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MIN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SINCE_LAST_DECISION_S_FIELD_NUMBER: _ClassVar[int]
    REPLICA_STATS_FIELD_NUMBER: _ClassVar[int]
    deployment: _common_pb2.DeploymentId
    running_replicas: int
    target_replicas: int
    queued_requests: float
    ongoing_requests: float
    average_requests: float
    max_requests: float
    min_requests: float
    options: AutoscalingOptions
    since_last_decision_s: float
    replica_stats: _containers.RepeatedCompositeFieldContainer[ReplicaStats]
    def __init__(self, deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., running_replicas: _Optional[int] = ..., target_replicas: _Optional[int] = ..., queued_requests: _Optional[float] = ..., ongoing_requests: _Optional[float] = ..., average_requests: _Optional[float] = ..., max_requests: _Optional[float] = ..., min_requests: _Optional[float] = ..., options: _Optional[_Union[AutoscalingOptions, _Mapping]] = ..., since_last_decision_s: _Optional[float] = ..., replica_stats: _Optional[_Iterable[_Union[ReplicaStats, _Mapping]]] = ...) -> None: ...

class PolicyAnswer(_message.Message):
    __slots__ = ("replicas",)
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    replicas: float
    def __init__(self, replicas: _Optional[float] = ...) -> None: ...

class ApplicationPolicyQuestion(_message.Message):
    __slots__ = ("deployments",)
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[PolicyQuestion]
    def __init__(self, deployments: _Optional[_Iterable[_Union[PolicyQuestion, _Mapping]]] = ...) -> None: ...

class ApplicationPolicyAnswer(_message.Message):
    __slots__ = ("replicas",)
    class ReplicasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.ScalarMap[str, float]
    def __init__(self, replicas: _Optional[_Mapping[str, float]] = ...) -> None: ...

class GatewaySpec(_message.Message):
    __slots__ = ("gateway_id", "node_id", "options", "index", "revision", "takes_over")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TAKES_OVER_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    node_id: str
    options: GatewayOptions
    index: int
    revision: int
    takes_over: str
    def __init__(self, gateway_id: _Optional[str] = ..., node_id: _Optional[str] = ..., options: _Optional[_Union[GatewayOptions, _Mapping]] = ..., index: _Optional[int] = ..., revision: _Optional[int] = ..., takes_over: _Optional[str] = ...) -> None: ...

class GatewayReady(_message.Message):
    __slots__ = ("gateway_id", "node_id", "grpc_address", "http_address", "pid", "index", "is_draining", "revision")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    node_id: str
    grpc_address: str
    http_address: str
    pid: int
    index: int
    is_draining: bool
    revision: int
    def __init__(self, gateway_id: _Optional[str] = ..., node_id: _Optional[str] = ..., grpc_address: _Optional[str] = ..., http_address: _Optional[str] = ..., pid: _Optional[int] = ..., index: _Optional[int] = ..., is_draining: bool = ..., revision: _Optional[int] = ...) -> None: ...

class ExpectedRevisions(_message.Message):
    __slots__ = ("revisions",)
    class RevisionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.ScalarMap[str, int]
    def __init__(self, revisions: _Optional[_Mapping[str, int]] = ...) -> None: ...

class DeployRequest(_message.Message):
    __slots__ = ("application", "request_id", "author")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    application: ApplicationSpec
    request_id: str
    author: str
    def __init__(self, application: _Optional[_Union[ApplicationSpec, _Mapping]] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ...) -> None: ...

class DeployReply(_message.Message):
    __slots__ = ("state_version", "warnings")
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    state_version: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state_version: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("applications", "config_file", "target_capacity", "run_id", "may_replace", "is_dry_run", "request_id", "author", "config_name", "keeps_other_files", "expected")
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FILE_FIELD_NUMBER: _ClassVar[int]
    TARGET_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MAY_REPLACE_FIELD_NUMBER: _ClassVar[int]
    IS_DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    CONFIG_NAME_FIELD_NUMBER: _ClassVar[int]
    KEEPS_OTHER_FILES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    applications: _containers.RepeatedCompositeFieldContainer[ApplicationSpec]
    config_file: str
    target_capacity: float
    run_id: str
    may_replace: bool
    is_dry_run: bool
    request_id: str
    author: str
    config_name: str
    keeps_other_files: bool
    expected: ExpectedRevisions
    def __init__(self, applications: _Optional[_Iterable[_Union[ApplicationSpec, _Mapping]]] = ..., config_file: _Optional[str] = ..., target_capacity: _Optional[float] = ..., run_id: _Optional[str] = ..., may_replace: bool = ..., is_dry_run: bool = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., config_name: _Optional[str] = ..., keeps_other_files: bool = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class ApplyReply(_message.Message):
    __slots__ = ("state_version", "changes", "warnings")
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    state_version: int
    changes: _containers.RepeatedCompositeFieldContainer[ApplicationChange]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state_version: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[ApplicationChange, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplicationChange(_message.Message):
    __slots__ = ("application", "lines", "revision")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    application: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    def __init__(self, application: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("application", "request_id", "author", "is_dry_run", "expected")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    IS_DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    application: str
    request_id: str
    author: str
    is_dry_run: bool
    expected: ExpectedRevisions
    def __init__(self, application: _Optional[str] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., is_dry_run: bool = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class ConfigureGatewaysRequest(_message.Message):
    __slots__ = ("options", "expected", "request_id", "author")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    options: GatewayOptions
    expected: GatewayOptions
    request_id: str
    author: str
    def __init__(self, options: _Optional[_Union[GatewayOptions, _Mapping]] = ..., expected: _Optional[_Union[GatewayOptions, _Mapping]] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ...) -> None: ...

class ConfigureGatewaysReply(_message.Message):
    __slots__ = ("state_version",)
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    state_version: int
    def __init__(self, state_version: _Optional[int] = ...) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("application", "deployment", "num_replicas", "request_id", "author", "change", "expected")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    NUM_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    application: str
    deployment: str
    num_replicas: int
    request_id: str
    author: str
    change: int
    expected: ExpectedRevisions
    def __init__(self, application: _Optional[str] = ..., deployment: _Optional[str] = ..., num_replicas: _Optional[int] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., change: _Optional[int] = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("application", "request_id", "author", "is_dry_run", "expected")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    IS_DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    application: str
    request_id: str
    author: str
    is_dry_run: bool
    expected: ExpectedRevisions
    def __init__(self, application: _Optional[str] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., is_dry_run: bool = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("application", "deployment", "is_paused", "request_id", "author", "expected")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    application: str
    deployment: str
    is_paused: bool
    request_id: str
    author: str
    expected: ExpectedRevisions
    def __init__(self, application: _Optional[str] = ..., deployment: _Optional[str] = ..., is_paused: bool = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("author",)
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    author: str
    def __init__(self, author: _Optional[str] = ...) -> None: ...

class MeshBackup(_message.Message):
    __slots__ = ("state", "contents", "servicer_functions", "unix_time_s")
    class ContentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    SERVICER_FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    state: DesiredState
    contents: _containers.ScalarMap[str, bytes]
    servicer_functions: bytes
    unix_time_s: float
    def __init__(self, state: _Optional[_Union[DesiredState, _Mapping]] = ..., contents: _Optional[_Mapping[str, bytes]] = ..., servicer_functions: _Optional[bytes] = ..., unix_time_s: _Optional[float] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("backup", "may_replace", "is_dry_run", "request_id", "author", "expected")
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    MAY_REPLACE_FIELD_NUMBER: _ClassVar[int]
    IS_DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    backup: MeshBackup
    may_replace: bool
    is_dry_run: bool
    request_id: str
    author: str
    expected: ExpectedRevisions
    def __init__(self, backup: _Optional[_Union[MeshBackup, _Mapping]] = ..., may_replace: bool = ..., is_dry_run: bool = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class CordonRequest(_message.Message):
    __slots__ = ("node", "is_draining", "request_id", "author")
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    node: str
    is_draining: bool
    request_id: str
    author: str
    def __init__(self, node: _Optional[str] = ..., is_draining: bool = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ...) -> None: ...

class UncordonRequest(_message.Message):
    __slots__ = ("node", "request_id", "author")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    node: str
    request_id: str
    author: str
    def __init__(self, node: _Optional[str] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ...) -> None: ...

class CordonReply(_message.Message):
    __slots__ = ("node", "is_new")
    NODE_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    node: NodeStatus
    is_new: bool
    def __init__(self, node: _Optional[_Union[NodeStatus, _Mapping]] = ..., is_new: bool = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("application",)
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    application: str
    def __init__(self, application: _Optional[str] = ...) -> None: ...

class HistoryReply(_message.Message):
    __slots__ = ("records", "rollback_unix_time_s")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[DeployRecord]
    rollback_unix_time_s: float
    def __init__(self, records: _Optional[_Iterable[_Union[DeployRecord, _Mapping]]] = ..., rollback_unix_time_s: _Optional[float] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "unix_time_s", "is_warning", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    IS_WARNING_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    unix_time_s: float
    is_warning: bool
    text: str
    def __init__(self, number: _Optional[int] = ..., unix_time_s: _Optional[float] = ..., is_warning: bool = ..., text: _Optional[str] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("after_number",)
    AFTER_NUMBER_FIELD_NUMBER: _ClassVar[int]
    after_number: int
    def __init__(self, after_number: _Optional[int] = ...) -> None: ...

class EventsReply(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class ConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfigReply(_message.Message):
    __slots__ = ("config_file",)
    CONFIG_FILE_FIELD_NUMBER: _ClassVar[int]
    config_file: str
    def __init__(self, config_file: _Optional[str] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("application", "run_id", "request_id", "author", "expected")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    application: str
    run_id: str
    request_id: str
    author: str
    expected: ExpectedRevisions
    def __init__(self, application: _Optional[str] = ..., run_id: _Optional[str] = ..., request_id: _Optional[str] = ..., author: _Optional[str] = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class DeleteReply(_message.Message):
    __slots__ = ("warnings",)
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("applications",)
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    applications: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, applications: _Optional[_Iterable[str]] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("request_id", "mesh_id", "expected")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MESH_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    mesh_id: bytes
    expected: ExpectedRevisions
    def __init__(self, request_id: _Optional[str] = ..., mesh_id: _Optional[bytes] = ..., expected: _Optional[_Union[ExpectedRevisions, _Mapping]] = ...) -> None: ...

class ShutdownReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("replica_id", "state", "node_id", "pid", "address", "stop_reason", "version", "age_s", "not_ready")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    state: str
    node_id: str
    pid: int
    address: str
    stop_reason: str
    version: str
    age_s: float
    not_ready: str
    def __init__(self, replica_id: _Optional[str] = ..., state: _Optional[str] = ..., node_id: _Optional[str] = ..., pid: _Optional[int] = ..., address: _Optional[str] = ..., stop_reason: _Optional[str] = ..., version: _Optional[str] = ..., age_s: _Optional[float] = ..., not_ready: _Optional[str] = ...) -> None: ...

class AutoscalingStatus(_message.Message):
    __slots__ = ("min_replicas", "max_replicas", "average_requests", "current_requests", "decision", "problem")
    MIN_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    min_replicas: int
    max_replicas: int
    average_requests: float
    current_requests: float
    decision: str
    problem: str
    def __init__(self, min_replicas: _Optional[int] = ..., max_replicas: _Optional[int] = ..., average_requests: _Optional[float] = ..., current_requests: _Optional[float] = ..., decision: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ReplicaDeath(_message.Message):
    __slots__ = ("replica_id", "age_s", "reason", "version", "node_id")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    age_s: float
    reason: str
    version: str
    node_id: str
    def __init__(self, replica_id: _Optional[str] = ..., age_s: _Optional[float] = ..., reason: _Optional[str] = ..., version: _Optional[str] = ..., node_id: _Optional[str] = ...) -> None: ...

class DeploymentStatus(_message.Message):
    __slots__ = ("name", "status", "trigger", "message", "replicas", "target_replicas", "autoscaling", "last_ended", "busy", "waiting", "places", "restarts", "is_paused", "deaths")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALING_FIELD_NUMBER: _ClassVar[int]
    LAST_ENDED_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    DEATHS_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    trigger: str
    message: str
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaStatus]
    target_replicas: int
    autoscaling: AutoscalingStatus
    last_ended: str
    busy: float
    waiting: float
    places: int
    restarts: int
    is_paused: bool
    deaths: _containers.RepeatedCompositeFieldContainer[ReplicaDeath]
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., trigger: _Optional[str] = ..., message: _Optional[str] = ..., replicas: _Optional[_Iterable[_Union[ReplicaStatus, _Mapping]]] = ..., target_replicas: _Optional[int] = ..., autoscaling: _Optional[_Union[AutoscalingStatus, _Mapping]] = ..., last_ended: _Optional[str] = ..., busy: _Optional[float] = ..., waiting: _Optional[float] = ..., places: _Optional[int] = ..., restarts: _Optional[int] = ..., is_paused: bool = ..., deaths: _Optional[_Iterable[_Union[ReplicaDeath, _Mapping]]] = ...) -> None: ...

class ApplicationStatus(_message.Message):
    __slots__ = ("name", "status", "message", "route_prefix", "ingress", "last_deployed_time_s", "deployments", "deployer", "run_id", "docs_path", "config_name", "rolled_back_because", "canary", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    LAST_DEPLOYED_TIME_S_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYER_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DOCS_PATH_FIELD_NUMBER: _ClassVar[int]
    CONFIG_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    message: str
    route_prefix: str
    ingress: str
    last_deployed_time_s: float
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentStatus]
    deployer: Deployer
    run_id: str
    docs_path: str
    config_name: str
    rolled_back_because: str
    canary: CanaryStatus
    revision: int
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., message: _Optional[str] = ..., route_prefix: _Optional[str] = ..., ingress: _Optional[str] = ..., last_deployed_time_s: _Optional[float] = ..., deployments: _Optional[_Iterable[_Union[DeploymentStatus, _Mapping]]] = ..., deployer: _Optional[_Union[Deployer, str]] = ..., run_id: _Optional[str] = ..., docs_path: _Optional[str] = ..., config_name: _Optional[str] = ..., rolled_back_because: _Optional[str] = ..., canary: _Optional[_Union[CanaryStatus, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class CanaryStatus(_message.Message):
    __slots__ = ("traffic", "last_deployed_time_s", "deployments", "run_id", "is_closed")
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    LAST_DEPLOYED_TIME_S_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    IS_CLOSED_FIELD_NUMBER: _ClassVar[int]
    traffic: TrafficRule
    last_deployed_time_s: float
    deployments: _containers.RepeatedCompositeFieldContainer[CanaryDeployment]
    run_id: str
    is_closed: bool
    def __init__(self, traffic: _Optional[_Union[TrafficRule, _Mapping]] = ..., last_deployed_time_s: _Optional[float] = ..., deployments: _Optional[_Iterable[_Union[CanaryDeployment, _Mapping]]] = ..., run_id: _Optional[str] = ..., is_closed: bool = ...) -> None: ...

class CanaryDeployment(_message.Message):
    __slots__ = ("name", "version", "running_replicas", "target_replicas", "message", "is_given_up")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGET_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    IS_GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    running_replicas: int
    target_replicas: int
    message: str
    is_given_up: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., running_replicas: _Optional[int] = ..., target_replicas: _Optional[int] = ..., message: _Optional[str] = ..., is_given_up: bool = ...) -> None: ...

class GatewayStatus(_message.Message):
    __slots__ = ("gateway_id", "node_id", "status", "grpc_address", "http_address", "message", "index", "revision")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    GRPC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    node_id: str
    status: str
    grpc_address: str
    http_address: str
    message: str
    index: int
    revision: int
    def __init__(self, gateway_id: _Optional[str] = ..., node_id: _Optional[str] = ..., status: _Optional[str] = ..., grpc_address: _Optional[str] = ..., http_address: _Optional[str] = ..., message: _Optional[str] = ..., index: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node_id", "address", "is_head", "status", "replicas", "replicas_to_move", "moved_replicas", "message")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IS_HEAD_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_TO_MOVE_FIELD_NUMBER: _ClassVar[int]
    MOVED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    is_head: bool
    status: str
    replicas: int
    replicas_to_move: int
    moved_replicas: int
    message: str
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., is_head: bool = ..., status: _Optional[str] = ..., replicas: _Optional[int] = ..., replicas_to_move: _Optional[int] = ..., moved_replicas: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ControllerStatus(_message.Message):
    __slots__ = ("pid", "node_id", "age_s", "restarts", "message")
    PID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    node_id: str
    age_s: float
    restarts: int
    message: str
    def __init__(self, pid: _Optional[int] = ..., node_id: _Optional[str] = ..., age_s: _Optional[float] = ..., restarts: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("applications", "gateways", "gateway_options", "is_shutting_down", "target_capacity", "controller", "nodes", "gateways_revision", "gateways_wanted")
    APPLICATIONS_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    IS_SHUTTING_DOWN_FIELD_NUMBER: _ClassVar[int]
    TARGET_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_REVISION_FIELD_NUMBER: _ClassVar[int]
    GATEWAYS_WANTED_FIELD_NUMBER: _ClassVar[int]
    applications: _containers.RepeatedCompositeFieldContainer[ApplicationStatus]
    gateways: _containers.RepeatedCompositeFieldContainer[GatewayStatus]
    gateway_options: GatewayOptions
    is_shutting_down: bool
    target_capacity: float
    controller: ControllerStatus
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    gateways_revision: int
    gateways_wanted: int
    def __init__(self, applications: _Optional[_Iterable[_Union[ApplicationStatus, _Mapping]]] = ..., gateways: _Optional[_Iterable[_Union[GatewayStatus, _Mapping]]] = ..., gateway_options: _Optional[_Union[GatewayOptions, _Mapping]] = ..., is_shutting_down: bool = ..., target_capacity: _Optional[float] = ..., controller: _Optional[_Union[ControllerStatus, _Mapping]] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., gateways_revision: _Optional[int] = ..., gateways_wanted: _Optional[int] = ...) -> None: ...

class ProcessHello(_message.Message):
    __slots__ = ("process_id", "node_id", "kind", "address", "reads_changes")
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    READS_CHANGES_FIELD_NUMBER: _ClassVar[int]
    process_id: str
    node_id: str
    kind: ProcessKind
    address: str
    reads_changes: bool
    def __init__(self, process_id: _Optional[str] = ..., node_id: _Optional[str] = ..., kind: _Optional[_Union[ProcessKind, str]] = ..., address: _Optional[str] = ..., reads_changes: bool = ...) -> None: ...

class DeploymentLoad(_message.Message):
    __slots__ = ("deployment", "queued", "ongoing", "executing", "stats")
    class StatsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ONGOING_FIELD_NUMBER: _ClassVar[int]
    EXECUTING_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    deployment: _common_pb2.DeploymentId
    queued: float
    ongoing: float
    executing: float
    stats: _containers.ScalarMap[str, float]
    def __init__(self, deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., queued: _Optional[float] = ..., ongoing: _Optional[float] = ..., executing: _Optional[float] = ..., stats: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("hello", "subscribe", "loads", "unsubscribe", "health")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    hello: ProcessHello
    subscribe: _containers.RepeatedCompositeFieldContainer[_common_pb2.DeploymentId]
    loads: _containers.RepeatedCompositeFieldContainer[DeploymentLoad]
    unsubscribe: _containers.RepeatedCompositeFieldContainer[_common_pb2.DeploymentId]
    health: ReplicaHealth
    def __init__(self, hello: _Optional[_Union[ProcessHello, _Mapping]] = ..., subscribe: _Optional[_Iterable[_Union[_common_pb2.DeploymentId, _Mapping]]] = ..., loads: _Optional[_Iterable[_Union[DeploymentLoad, _Mapping]]] = ..., unsubscribe: _Optional[_Iterable[_Union[_common_pb2.DeploymentId, _Mapping]]] = ..., health: _Optional[_Union[ReplicaHealth, _Mapping]] = ...) -> None: ...

class ReplicaHealth(_message.Message):
    __slots__ = ("replica_id", "is_well")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    IS_WELL_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    is_well: bool
    def __init__(self, replica_id: _Optional[str] = ..., is_well: bool = ...) -> None: ...

class ReplicaInfo(_message.Message):
    __slots__ = ("replica_id", "address", "node_id", "zone", "version")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    address: str
    node_id: str
    zone: str
    version: str
    def __init__(self, replica_id: _Optional[str] = ..., address: _Optional[str] = ..., node_id: _Optional[str] = ..., zone: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class RequestRouter(_message.Message):
    __slots__ = ("import_path", "kwargs_json", "stats_period_s", "stats_timeout_s")
    IMPORT_PATH_FIELD_NUMBER: _ClassVar[int]
    KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    STATS_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    STATS_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    import_path: str
    kwargs_json: str
    stats_period_s: float
    stats_timeout_s: float
    def __init__(self, import_path: _Optional[str] = ..., kwargs_json: _Optional[str] = ..., stats_period_s: _Optional[float] = ..., stats_timeout_s: _Optional[float] = ...) -> None: ...

class DeploymentSnapshot(_message.Message):
    __slots__ = ("deployment", "version", "replicas", "max_ongoing_requests", "max_queued_requests", "queue_timeout_s", "backpressure", "request_router", "unavailable", "load_interval_s", "lost_replica_ids", "starts_on_demand", "is_missing", "traffic", "canary_version", "canary_versions", "changes_version", "removed_replica_ids")
    class CanaryVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_ONGOING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ROUTER_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    LOAD_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    LOST_REPLICA_IDS_FIELD_NUMBER: _ClassVar[int]
    STARTS_ON_DEMAND_FIELD_NUMBER: _ClassVar[int]
    IS_MISSING_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_VERSION_FIELD_NUMBER: _ClassVar[int]
    REMOVED_REPLICA_IDS_FIELD_NUMBER: _ClassVar[int]
    deployment: _common_pb2.DeploymentId
    version: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaInfo]
    max_ongoing_requests: int
    max_queued_requests: int
    queue_timeout_s: float
    backpressure: _common_pb2.BackpressureAnswer
    request_router: RequestRouter
    unavailable: str
    load_interval_s: float
    lost_replica_ids: _containers.RepeatedScalarFieldContainer[str]
    starts_on_demand: bool
    is_missing: bool
    traffic: TrafficRule
    canary_version: str
    canary_versions: _containers.ScalarMap[str, str]
    changes_version: int
    removed_replica_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deployment: _Optional[_Union[_common_pb2.DeploymentId, _Mapping]] = ..., version: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaInfo, _Mapping]]] = ..., max_ongoing_requests: _Optional[int] = ..., max_queued_requests: _Optional[int] = ..., queue_timeout_s: _Optional[float] = ..., backpressure: _Optional[_Union[_common_pb2.BackpressureAnswer, _Mapping]] = ..., request_router: _Optional[_Union[RequestRouter, _Mapping]] = ..., unavailable: _Optional[str] = ..., load_interval_s: _Optional[float] = ..., lost_replica_ids: _Optional[_Iterable[str]] = ..., starts_on_demand: bool = ..., is_missing: bool = ..., traffic: _Optional[_Union[TrafficRule, _Mapping]] = ..., canary_version: _Optional[str] = ..., canary_versions: _Optional[_Mapping[str, str]] = ..., changes_version: _Optional[int] = ..., removed_replica_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("app", "route_prefix", "ingress", "grpc_methods", "serves_web", "docs_path", "descriptors_digest", "model_id_paths", "traffic")
    APP_FIELD_NUMBER: _ClassVar[int]
    ROUTE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    GRPC_METHODS_FIELD_NUMBER: _ClassVar[int]
    SERVES_WEB_FIELD_NUMBER: _ClassVar[int]
    DOCS_PATH_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_PATHS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    app: str
    route_prefix: str
    ingress: str
    grpc_methods: _containers.RepeatedCompositeFieldContainer[GrpcMethod]
    serves_web: bool
    docs_path: str
    descriptors_digest: str
    model_id_paths: _containers.RepeatedScalarFieldContainer[str]
    traffic: TrafficRule
    def __init__(self, app: _Optional[str] = ..., route_prefix: _Optional[str] = ..., ingress: _Optional[str] = ..., grpc_methods: _Optional[_Iterable[_Union[GrpcMethod, _Mapping]]] = ..., serves_web: bool = ..., docs_path: _Optional[str] = ..., descriptors_digest: _Optional[str] = ..., model_id_paths: _Optional[_Iterable[str]] = ..., traffic: _Optional[_Union[TrafficRule, _Mapping]] = ...) -> None: ...

class DescriptorSet(_message.Message):
    __slots__ = ("digest", "serialised")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SERIALISED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    serialised: bytes
    def __init__(self, digest: _Optional[str] = ..., serialised: _Optional[bytes] = ...) -> None: ...

class RouteTable(_message.Message):
    __slots__ = ("version", "routes", "descriptor_sets")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_SETS_FIELD_NUMBER: _ClassVar[int]
    version: int
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    descriptor_sets: _containers.RepeatedCompositeFieldContainer[DescriptorSet]
    def __init__(self, version: _Optional[int] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., descriptor_sets: _Optional[_Iterable[_Union[DescriptorSet, _Mapping]]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("process_id", "kind", "address")
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    process_id: str
    kind: ProcessKind
    address: str
    def __init__(self, process_id: _Optional[str] = ..., kind: _Optional[_Union[ProcessKind, str]] = ..., address: _Optional[str] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("snapshots", "routes", "peers")
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[DeploymentSnapshot]
    routes: RouteTable
    peers: Peers
    def __init__(self, snapshots: _Optional[_Iterable[_Union[DeploymentSnapshot, _Mapping]]] = ..., routes: _Optional[_Union[RouteTable, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ...) -> None: ...
