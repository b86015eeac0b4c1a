//! Configuration: the environment, read once.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tenon_control::{ControlPlane, TlsFiles as ControlTls};
use tenon_proxy::{Limits, TlsFiles, WhenLogFull};
use tenon_snapshot::Network;
use tenon_upstream::health::CheckIntervals;
use tenon_usage::LogOptions;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} must be set (see tenon-gateway --help)")]
    Missing(&'static str),
    #[error("{0} cannot be read as {1}: {2:?}")]
    Malformed(&'static str, &'static str, String),
    #[error("{0} names a file that cannot be read: {1}")]
    File(&'static str, std::io::Error),
    #[error("unknown argument {0:?} (see tenon-gateway --help); configuration comes from the environment")]
    Argument(String),
}

pub struct RequestLogConfig {
    pub file: PathBuf,
    pub ratio: f64,
    pub bodies: bool,
}

/// What the arguments request.
pub enum Command {
    Run(Box<Config>),
    Print(String),
    Check(Box<Config>),
    Diff(Box<Config>),
}

/// The value of every variable. None holds a secret: secrets are in files.
pub type Settings = BTreeMap<&'static str, String>;

pub struct Config {
    pub settings: Settings,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub grpc_listen: Option<SocketAddr>,
    pub control_url: String,
    pub control_tls: ControlTls,
    pub gateway_id: String,
    pub token: String,
    pub sealing_key_file: PathBuf,
    pub data_dir: PathBuf,
    pub upstream_authorities: Option<PathBuf>,
    /// `None` = callers speak plain HTTP.
    pub tls: Option<TlsFiles>,
    pub tls_handshake: Duration,
    pub threads: usize,
    pub drain: Duration,
    pub limits: Limits,
    pub queue_length_max: usize,
    pub checks: CheckIntervals,
    pub log: LogOptions,
    /// For each thread.
    pub explain_calls: usize,
    pub request_log: Option<RequestLogConfig>,
    pub otlp_endpoint: Option<String>,
    pub trace_sample_ratio: f64,
    pub trusted_proxies: Vec<Network>,
}

/// At full speed a segment is full in a second. Only segments that wait for long calls are marked later.
const MARK_AFTER: Duration = Duration::from_secs(2);

/// Name, default ("" = none: it must be set, or the feature is off), meaning.
pub const VARIABLES: &[(&str, &str, &str)] = &[
    ("TENON_GATEWAY_LISTEN", "127.0.0.1:8090", "address for callers"),
    ("TENON_GATEWAY_ADMIN_LISTEN", "127.0.0.1:8091", "address for /livez, /readyz and /metrics"),
    ("TENON_GATEWAY_GRPC_LISTEN", "", "address for callers of the Open Inference Protocol over gRPC (HTTP/2); without it there is no such listener"),
    ("TENON_GATEWAY_CONTROL_URL", "http://127.0.0.1:8082", "the control plane's gRPC address (http:// or https://)"),
    ("TENON_GATEWAY_CONTROL_CA_FILE", "", "PEM of authorities to trust for it, in addition to the public ones"),
    ("TENON_GATEWAY_CONTROL_CERT_FILE", "", "PEM of the client certificate for it, if it requires one"),
    ("TENON_GATEWAY_CONTROL_KEY_FILE", "", "PEM of that certificate's key; these three files are read again for each connection"),
    ("TENON_GATEWAY_TLS_CERT_FILE", "", "PEM of the certificate for callers, the leaf first; without it callers use plain HTTP"),
    ("TENON_GATEWAY_TLS_KEY_FILE", "", "PEM of its key; both are read again when they change and on SIGHUP"),
    ("TENON_GATEWAY_TLS_CLIENT_CA_FILE", "", "PEM of authorities for callers' certificates: a caller may present one, and keys can be bound to it"),
    ("TENON_GATEWAY_TLS_HANDSHAKE_MS", "10000", "time for a TLS handshake"),
    ("TENON_GATEWAY_ID", "", "this gateway's id, as enrolled (required)"),
    ("TENON_GATEWAY_TOKEN_FILE", "", "file with the enrolment token (required)"),
    ("TENON_GATEWAY_SEALING_KEY_FILE", "", "file with the sealing key, 32 bytes raw or 64 hexadecimal digits (required)"),
    ("TENON_GATEWAY_DATA_DIR", "", "directory for the usage log and the last known good snapshot (required)"),
    (
        "TENON_GATEWAY_UPSTREAM_CA_FILE",
        "",
        "PEM of authorities to trust for https endpoints, in addition to the public ones; read again when it changes",
    ),
    ("TENON_GATEWAY_TRUSTED_PROXIES", "", "networks (CIDR, separated by commas) whose X-Forwarded-For has the caller's address"),
    ("TENON_GATEWAY_THREADS", "cores", "reactors; each has a thread and a listening socket"),
    ("TENON_GATEWAY_BODY_BYTES_MAX", "20971520", "largest request body"),
    ("TENON_GATEWAY_BODY_MEMORY_MAX", "536870912", "memory for all request bodies together; a body above it is refused before it is read"),
    ("TENON_GATEWAY_BODY_READ_MS", "30000", "time for a body to arrive"),
    ("TENON_GATEWAY_BODY_IDLE_MS", "10000", "between two pieces of a body"),
    ("TENON_GATEWAY_HEAD_BYTES_MAX", "65536", "largest head of a request, and the buffer for a caller that reads slowly; at least 8192"),
    (
        "TENON_GATEWAY_CALLER_STALL_MS",
        "60000",
        "a caller that reads nothing of its answer for this long is disconnected, and its upstream call cancelled",
    ),
    ("TENON_GATEWAY_ABORT_DRAIN_MS", "60000", "where an endpoint bills aborted calls: how long its answer is read on for the usage"),
    ("TENON_GATEWAY_ABORT_DRAINS_MAX", "256", "such answers at a time, for each thread; further ones are cancelled and their usage is estimated"),
    ("TENON_GATEWAY_CONNECTION_IDLE_MS", "75000", "an idle connection of a caller is closed after this"),
    ("TENON_GATEWAY_CONNECTIONS_MAX", "20000", "callers' connections for each thread; one more is answered 503 and closed"),
    ("TENON_GATEWAY_CONNECT_TIMEOUT_MS", "5000", "upstream: connect (an endpoint's own timeouts come first, for all five)"),
    ("TENON_GATEWAY_HEADERS_TIMEOUT_MS", "600000", "upstream: until the answer begins"),
    ("TENON_GATEWAY_FIRST_TOKEN_TIMEOUT_MS", "600000", "upstream: from there to the first byte of the body"),
    ("TENON_GATEWAY_IDLE_TIMEOUT_MS", "120000", "upstream: between two pieces of the body"),
    ("TENON_GATEWAY_TOTAL_TIMEOUT_MS", "3600000", "upstream: the whole call"),
    ("TENON_GATEWAY_QUEUE_WAIT_MS", "30000", "how long a call waits for a saturated endpoint, if its model has no queue_timeout_ms; at least 1"),
    ("TENON_GATEWAY_QUEUE_LENGTH_MAX", "4096", "calls that may wait for one endpoint's server; one more is refused, 0 = none may wait"),
    ("TENON_GATEWAY_HEALTH_INTERVAL_MS", "5000", "between two checks of an endpoint's health_path; 0 = never"),
    ("TENON_GATEWAY_METRICS_INTERVAL_MS", "1000", "between two reads of an engine's metrics_url; 0 = never"),
    ("TENON_GATEWAY_WATCH_TIMEOUT_MS", "2000", "time for one check or read"),
    (
        "TENON_GATEWAY_FORGED_TOKENS_PER_SECOND",
        "5",
        "failed checks of callers' tokens, for each source address and thread (four times as many at once); further tokens are not checked; 0 = no limit",
    ),
    ("TENON_GATEWAY_STALENESS_MAX_MS", "86400000", "how long keys are accepted without contact with the control plane"),
    ("TENON_GATEWAY_DRAIN_MS", "30000", "on SIGTERM: time for answers to finish, then again for usage to ship (at most 10 s)"),
    ("TENON_GATEWAY_WAL_SEGMENT_BYTES", "8388608", "size of a segment of the usage log"),
    ("TENON_GATEWAY_WAL_BYTES_MAX", "1073741824", "size of the whole log"),
    ("TENON_GATEWAY_WHEN_LOG_FULL", "refuse", "refuse or serve_unmetered: what happens to calls then; unmetered ones are counted and have no record"),
    ("TENON_GATEWAY_WAL_STRICT", "false", "true: the end of an answer waits until its usage record is on the disk"),
    (
        "TENON_GATEWAY_OPENAI_LIMIT_HEADERS",
        "false",
        "true: x-ratelimit-* in addition to RateLimit on every answer; a caller at its limit always gets them",
    ),
    ("TENON_GATEWAY_WAL_SYNC_MS", "50", "a power failure may lose the records of this time"),
    ("TENON_GATEWAY_EXPLAIN_CALLS", "1024", "ended calls that can still be explained, for each thread; 0 = none"),
    ("TENON_GATEWAY_REQUEST_LOG_RATIO", "0", "share of calls in the request log, from 0 (off) to 1"),
    ("TENON_GATEWAY_REQUEST_LOG_FILE", "", "path of the request log; required with a ratio"),
    ("TENON_GATEWAY_REQUEST_LOG_BODIES", "none", "none, or redacted: bodies with every text replaced by its length and a hash"),
    ("TENON_OTLP_ENDPOINT", "", "OpenTelemetry collector for spans (OTLP over HTTP, {endpoint}/v1/traces); without it there are none"),
    ("TENON_TRACE_SAMPLE_RATIO", "0.01", "share of calls with a span, from 0 to 1, if the caller's traceparent does not decide"),
    ("TENON_LOG", "info", "log filter: error, warn, info, debug"),
];

impl Config {
    /// The control plane's address and this gateway's identity.
    pub fn control_plane(&self) -> ControlPlane {
        ControlPlane { url: self.control_url.clone(), gateway_id: self.gateway_id.clone(), token: self.token.clone(), tls: self.control_tls.clone() }
    }

    pub fn from_process() -> Result<Command, ConfigError> {
        match std::env::args().nth(1).as_deref() {
            Some("--help" | "-h") => return Ok(Command::Print(help())),
            Some("--version" | "-V") => return Ok(Command::Print(format!("tenon-gateway {}", env!("CARGO_PKG_VERSION")))),
            Some("routes") => return Ok(Command::Print(tenon_proxy::routes_json())),
            Some("check") => return Self::from_environment().map(Command::Check),
            Some("diff") => return Self::from_environment().map(Command::Diff),
            Some(other) => return Err(ConfigError::Argument(other.to_owned())),
            None => {}
        }
        Self::from_environment().map(Command::Run)
    }

    fn from_environment() -> Result<Box<Self>, ConfigError> {
        let read = |(name, _, _): &(&'static str, _, _)| Some((*name, std::env::var(name).ok().filter(|value| !value.is_empty())?));
        Source(VARIABLES.iter().filter_map(read).collect()).config().map(Box::new)
    }
}

fn help() -> String {
    let mut text = "tenon-gateway: the data plane of Tenon. It stays in the foreground and is configured by the environment:\n".to_owned();
    for (name, default, meaning) in VARIABLES {
        text += &format!("\n  {name:<38} {meaning}{}", if default.is_empty() { String::new() } else { format!(" [{default}]") });
    }
    text += "\n\nArguments: check (can a gateway start with this environment), diff (what a restart would change in the running gateway), routes (its routes, as JSON).";
    text += "\n\nExit codes: 0 stopped as requested, 2 configuration, 3 address taken, 4 data directory or sealing key unusable, 1 anything else.";
    text
}

struct Source(HashMap<&'static str, String>);

impl Source {
    fn text(&self, name: &'static str) -> Result<String, ConfigError> {
        let default = VARIABLES.iter().find(|(known, _, _)| *known == name).map(|(_, default, _)| *default);
        let value = self.0.get(name).cloned().or_else(|| default.filter(|d| !d.is_empty()).map(str::to_owned));
        value.ok_or(ConfigError::Missing(name))
    }

    fn parse<T: std::str::FromStr>(&self, name: &'static str, expected: &'static str) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        text.parse().map_err(|_| ConfigError::Malformed(name, expected, text))
    }

    fn ms(&self, name: &'static str) -> Result<Duration, ConfigError> {
        self.parse(name, "milliseconds").map(Duration::from_millis)
    }

    fn file(&self, name: &'static str) -> Result<Option<Vec<u8>>, ConfigError> {
        self.0.get(name).map(|path| std::fs::read(path).map_err(|e| ConfigError::File(name, e))).transpose()
    }

    fn control_tls(&self) -> Result<ControlTls, ConfigError> {
        let named = |name| self.0.get(name).map(PathBuf::from);
        let identity = match (named("TENON_GATEWAY_CONTROL_CERT_FILE"), named("TENON_GATEWAY_CONTROL_KEY_FILE")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (None, Some(_)) => return Err(ConfigError::Missing("TENON_GATEWAY_CONTROL_CERT_FILE")),
            (Some(_), None) => return Err(ConfigError::Missing("TENON_GATEWAY_CONTROL_KEY_FILE")),
        };
        Ok(ControlTls { authorities: named("TENON_GATEWAY_CONTROL_CA_FILE"), identity })
    }

    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let named = |name| self.0.get(name).map(PathBuf::from);
        let (certificate, key) = (named("TENON_GATEWAY_TLS_CERT_FILE"), named("TENON_GATEWAY_TLS_KEY_FILE"));
        let client_authorities = named("TENON_GATEWAY_TLS_CLIENT_CA_FILE");
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key, client_authorities })),
            (None, None) if client_authorities.is_none() => Ok(None),
            (None, _) => Err(ConfigError::Missing("TENON_GATEWAY_TLS_CERT_FILE")),
            (_, None) => Err(ConfigError::Missing("TENON_GATEWAY_TLS_KEY_FILE")),
        }
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let mut limits = Limits {
            body_bytes_max: self.parse("TENON_GATEWAY_BODY_BYTES_MAX", "a number of bytes")?,
            body_memory_max: self.parse("TENON_GATEWAY_BODY_MEMORY_MAX", "a number of bytes")?,
            body_idle: self.ms("TENON_GATEWAY_BODY_IDLE_MS")?,
            caller_stall: self.ms("TENON_GATEWAY_CALLER_STALL_MS")?,
            abort_drain: self.ms("TENON_GATEWAY_ABORT_DRAIN_MS")?,
            abort_drains_max_per_thread: self.parse("TENON_GATEWAY_ABORT_DRAINS_MAX", "a number")?,
            head_bytes_max: self.parse::<usize>("TENON_GATEWAY_HEAD_BYTES_MAX", "a number of bytes")?.max(8192),
            body_read: self.ms("TENON_GATEWAY_BODY_READ_MS")?,
            connection_idle: self.ms("TENON_GATEWAY_CONNECTION_IDLE_MS")?,
            connections_max_per_thread: self.parse("TENON_GATEWAY_CONNECTIONS_MAX", "a number")?,
            forged_tokens_per_second: self.parse("TENON_GATEWAY_FORGED_TOKENS_PER_SECOND", "a number")?,
            staleness_max: self.ms("TENON_GATEWAY_STALENESS_MAX_MS")?,
            when_log_full: self
                .one_of("TENON_GATEWAY_WHEN_LOG_FULL", [("refuse", WhenLogFull::Refuse), ("serve_unmetered", WhenLogFull::ServeUnmetered)])?,
            openai_limit_headers: self.one_of("TENON_GATEWAY_OPENAI_LIMIT_HEADERS", [("false", false), ("true", true)])?,
            settle_on_disk: self.one_of("TENON_GATEWAY_WAL_STRICT", [("false", false), ("true", true)])?,
            ..Limits::default()
        };
        // Zero would be no deadline at all.
        limits.queue_wait = self.ms("TENON_GATEWAY_QUEUE_WAIT_MS")?.max(Duration::from_millis(1));
        limits.upstream.connect = self.ms("TENON_GATEWAY_CONNECT_TIMEOUT_MS")?;
        limits.upstream.headers = self.ms("TENON_GATEWAY_HEADERS_TIMEOUT_MS")?;
        limits.upstream.first_token = self.ms("TENON_GATEWAY_FIRST_TOKEN_TIMEOUT_MS")?;
        limits.upstream.idle = self.ms("TENON_GATEWAY_IDLE_TIMEOUT_MS")?;
        limits.upstream.total = self.ms("TENON_GATEWAY_TOTAL_TIMEOUT_MS")?;
        Ok(limits)
    }

    fn checks(&self) -> Result<CheckIntervals, ConfigError> {
        Ok(CheckIntervals {
            health: self.ms("TENON_GATEWAY_HEALTH_INTERVAL_MS")?,
            metrics: self.ms("TENON_GATEWAY_METRICS_INTERVAL_MS")?,
            timeout: self.ms("TENON_GATEWAY_WATCH_TIMEOUT_MS")?,
        })
    }

    fn one_of<T, const N: usize>(&self, name: &'static str, words: [(&'static str, T); N]) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        let value = words.into_iter().find(|(word, _)| *word == text).map(|(_, value)| value);
        value.ok_or(ConfigError::Malformed(name, "one of its allowed words", text))
    }

    fn ratio(&self, name: &'static str) -> Result<f64, ConfigError> {
        let ratio: f64 = self.parse(name, "a number from 0 to 1")?;
        let fits = (0.0..=1.0).contains(&ratio);
        fits.then_some(ratio).ok_or_else(|| ConfigError::Malformed(name, "a number from 0 to 1", ratio.to_string()))
    }

    fn networks(&self, name: &'static str) -> Result<Vec<Network>, ConfigError> {
        let text = self.0.get(name).map_or("", String::as_str);
        let networks = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Network::parse).collect::<Option<_>>();
        networks.ok_or_else(|| ConfigError::Malformed(name, "networks such as 10.0.0.0/8, separated by commas", text.to_owned()))
    }

    fn request_log(&self) -> Result<Option<RequestLogConfig>, ConfigError> {
        let ratio = self.ratio("TENON_GATEWAY_REQUEST_LOG_RATIO")?;
        let bodies = self.one_of("TENON_GATEWAY_REQUEST_LOG_BODIES", [("none", false), ("redacted", true)])?;
        if ratio == 0.0 {
            return Ok(None);
        }
        Ok(Some(RequestLogConfig { file: self.text("TENON_GATEWAY_REQUEST_LOG_FILE")?.into(), ratio, bodies }))
    }

    fn threads(&self) -> Result<usize, ConfigError> {
        match self.text("TENON_GATEWAY_THREADS")?.as_str() {
            "cores" => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
            text => {
                let count = text.parse().ok().filter(|count| (1..=1024).contains(count));
                count.ok_or_else(|| ConfigError::Malformed("TENON_GATEWAY_THREADS", "a number from 1 to 1024", text.to_owned()))
            }
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let token = self.text("TENON_GATEWAY_TOKEN_FILE").and_then(|_| self.file("TENON_GATEWAY_TOKEN_FILE"))?.unwrap_or_default();
        let data_dir: PathBuf = self.text("TENON_GATEWAY_DATA_DIR")?.into();
        let gateway_id = self.text("TENON_GATEWAY_ID")?;
        let threads = self.threads()?;
        let segment_bytes: usize = self.parse("TENON_GATEWAY_WAL_SEGMENT_BYTES", "a number of bytes")?;
        let log = LogOptions {
            root: data_dir.join("wal"),
            gateway_id: gateway_id.clone(),
            lanes: threads,
            segment_bytes: segment_bytes.max(64 << 10).next_multiple_of(4096),
            bytes_max: self.parse("TENON_GATEWAY_WAL_BYTES_MAX", "a number of bytes")?,
            sync_every: self.ms("TENON_GATEWAY_WAL_SYNC_MS")?.max(Duration::from_millis(1)),
            mark_after: MARK_AFTER,
            disk: tenon_usage::Disk::default(),
        };
        Ok(Config {
            settings: VARIABLES.iter().map(|(name, ..)| (*name, self.text(name).unwrap_or_default())).collect(),
            listen: self.parse("TENON_GATEWAY_LISTEN", "an address (host:port)")?,
            grpc_listen: self
                .0
                .contains_key("TENON_GATEWAY_GRPC_LISTEN")
                .then(|| self.parse("TENON_GATEWAY_GRPC_LISTEN", "an address (host:port)"))
                .transpose()?,
            admin_listen: self.parse("TENON_GATEWAY_ADMIN_LISTEN", "an address (host:port)")?,
            control_url: self.text("TENON_GATEWAY_CONTROL_URL")?,
            control_tls: self.control_tls()?,
            tls: self.tls()?,
            tls_handshake: self.ms("TENON_GATEWAY_TLS_HANDSHAKE_MS")?,
            gateway_id,
            token: String::from_utf8_lossy(&token).trim().to_owned(),
            sealing_key_file: self.text("TENON_GATEWAY_SEALING_KEY_FILE")?.into(),
            data_dir,
            upstream_authorities: self.0.get("TENON_GATEWAY_UPSTREAM_CA_FILE").map(PathBuf::from),
            threads,
            drain: self.ms("TENON_GATEWAY_DRAIN_MS")?,
            limits: self.limits()?,
            queue_length_max: self.parse("TENON_GATEWAY_QUEUE_LENGTH_MAX", "a number")?,
            checks: self.checks()?,
            log,
            explain_calls: self.parse("TENON_GATEWAY_EXPLAIN_CALLS", "a number")?,
            request_log: self.request_log()?,
            otlp_endpoint: self.0.get("TENON_OTLP_ENDPOINT").cloned(),
            trace_sample_ratio: self.ratio("TENON_TRACE_SAMPLE_RATIO")?,
            trusted_proxies: self.networks("TENON_GATEWAY_TRUSTED_PROXIES")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(pairs: &[(&'static str, &str)]) -> Source {
        Source(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn missing_and_wrong_variables_are_named() {
        assert_eq!(source(&[]).config().err().unwrap().to_string(), "TENON_GATEWAY_TOKEN_FILE must be set (see tenon-gateway --help)");
        let wrong = source(&[("TENON_GATEWAY_THREADS", "0")]).threads().unwrap_err().to_string();
        assert!(wrong.contains("TENON_GATEWAY_THREADS"), "{wrong}");
        let wrong = source(&[("TENON_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8, home")]).networks("TENON_GATEWAY_TRUSTED_PROXIES").unwrap_err();
        assert!(wrong.to_string().contains("TENON_GATEWAY_TRUSTED_PROXIES"), "{wrong}");
        for ratio in ["-0.1", "1.01", "NaN", "half"] {
            let wrong = source(&[("TENON_TRACE_SAMPLE_RATIO", ratio)]).ratio("TENON_TRACE_SAMPLE_RATIO").unwrap_err().to_string();
            assert!(wrong.contains("TENON_TRACE_SAMPLE_RATIO"), "{wrong}");
        }
        assert!((source(&[]).ratio("TENON_TRACE_SAMPLE_RATIO").unwrap() - 0.01).abs() < f64::EPSILON);
    }

    #[test]
    fn every_variable_is_in_the_help_and_in_the_readme() {
        let (help, readme) = (help(), include_str!("../../../README.md"));
        for (name, _, _) in VARIABLES {
            assert!(help.contains(name) && readme.contains(name), "{name}");
        }
    }
}
