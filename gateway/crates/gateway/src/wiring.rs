//! Starts the parts in the order of their dependencies and stops them in reverse order.

use crate::admin::{Admin, serve_admin};
use crate::check;
use crate::config::Config;
use crate::handover::{HandoverListener, Predecessor, Role, Sockets};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_control::{Control, ControlError, ControlParts};
use tenon_limits::LimitRegistry;
use tenon_proxy::observe::metrics::{Metrics, ThreadMetrics};
use tenon_proxy::observe::request_log::RequestLog;
use tenon_proxy::{BodyMemory, CompletedCalls, ServerError, Servers, SharedState, TlsListener, listen};
use tenon_snapshot::{Freshness, LastKnownGood, SealError, SealingKey, SharedSnapshot, Store};
use tenon_telemetry::{Exporter, StartError as TelemetryError};
use tenon_upstream::health;
use tenon_upstream::pem::TlsError;
use tenon_upstream::trust_store::TrustStore;
use tenon_usage::{Log, LogError};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long a stop waits for shipping. Records that stay in the log ship after the next start.
const SHIP_GRACE_PERIOD_MAX: Duration = Duration::from_secs(10);
/// How long a stop waits for spans.
const SPAN_GRACE_PERIOD: Duration = Duration::from_secs(2);

/// How long a new process waits for a snapshot before it gives up.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(30);
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Seal(#[from] SealError),
    #[error("the data directory {0} cannot be used: {1}")]
    DataDir(PathBuf, io::Error),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error("{0}")]
    Server(#[from] ServerError),
    #[error("cannot listen on {0} for administration: {1}")]
    Admin(SocketAddr, io::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("the gateway running on this data directory did not hand over its sockets: {0}")]
    HandOver(io::Error),
    #[error("TENON_GATEWAY_REQUEST_LOG_FILE cannot be written: {0}")]
    RequestLog(io::Error),
    #[error("the control plane could not be reached in time, so the running gateway goes on")]
    NotReady,
    #[error("the main runtime could not be started: {0}")]
    Runtime(io::Error),
    #[error("{0}")]
    Telemetry(#[from] TelemetryError),
}

impl StartError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Server(ServerError::Listen(..)) | Self::Admin(..) => 3,
            Self::DataDir(..) | Self::Log(_) | Self::Seal(_) => 4,
            Self::RequestLog(_) | Self::Control(_) | Self::Tls(_) | Self::Telemetry(TelemetryError::Endpoint(_)) => 2,
            Self::HandOver(_)
            | Self::NotReady
            | Self::Server(ServerError::Thread(_))
            | Self::Runtime(_)
            | Self::Telemetry(TelemetryError::Thread(_)) => 1,
        }
    }
}

/// Runs until a signal.
pub fn run(config: Config) -> Result<(), StartError> {
    let sealing = Arc::new(SealingKey::read(&config.sealing_key_file)?);
    let dir = config.data_dir.clone();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| StartError::DataDir(dir, e))?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    let mut predecessor = Predecessor::connect(&config.data_dir).map_err(StartError::HandOver)?;
    let mut inherited = |role, address| predecessor.as_mut().map_or_else(Vec::new, |predecessor| predecessor.take(role, address));
    let listeners = listen(config.listen, config.threads, inherited(Role::Callers, config.listen))?;
    let grpc = config.grpc_listen.map_or(Ok(Vec::new()), |address| listen(address, config.threads, inherited(Role::Grpc, address)))?;
    let admin = admin_listener(config.admin_listen, inherited(Role::Admin, config.admin_listen).pop())?;
    let sockets = clones(&listeners, &grpc, &admin);
    let trust = TrustStore::open(config.upstream_authorities.clone())?;
    let tls_listener = config.tls.clone().map(|files| TlsListener::open(files, config.tls_handshake)).transpose()?.map(Arc::new);
    let exporter = export(&config, &trust)?;
    let (log, shipper) = Log::start(config.log.clone())?;

    let (snapshots, freshness) = (SharedSnapshot::default(), Arc::new(Freshness::default()));
    let disk = LastKnownGood::new(&config.data_dir, sealing.clone());
    let limit_registry = Arc::new(LimitRegistry::default());
    let mut store = Store::new(snapshots.clone(), sealing).with_limits(limit_registry.clone()).with_queue_len_max(config.queue_length_max);
    let endpoint_registry = store.endpoint_registry();
    restore(&disk, &mut store, &freshness);
    let control =
        Control::start(config.control_plane(), ControlParts { store, freshness: freshness.clone(), disk, shipper, limits: limit_registry.clone() })?;
    let metrics: Metrics = (0..config.threads).map(|_| ThreadMetrics::default()).collect();
    let spans = exporter.as_ref().map(|exporter| exporter.spans.clone());
    let request_log = request_log(&config)?;
    let shared = SharedState {
        snapshots,
        freshness,
        key_resolver: control.key_resolver.clone(),
        log: log.clone(),
        limit_registry: limit_registry.clone(),
        limits: config.limits,
        body_memory: BodyMemory::default(),
        endpoint_registry,
        trust: trust.clone(),
        metrics,
        spans,
        trusted_proxies: config.trusted_proxies.as_slice().into(),
        tls_listener: tls_listener.clone(),
        completed_calls: CompletedCalls::new(config.threads, config.explain_calls),
        request_log,
    };
    if predecessor.is_some() {
        wait_for_snapshot(&shared)?;
    }
    health::start(shared.snapshots.clone(), shared.endpoint_registry.clone(), trust.clone(), config.checks).map_err(StartError::Runtime)?;
    let servers = Servers::start(&shared, listeners, grpc)?;
    let admin_socket = runtime.block_on(async { TcpListener::from_std(admin) }).map_err(|e| StartError::Admin(config.admin_listen, e))?;
    let admin = Admin::new(&shared, control.status.clone(), check::json(&config.settings), admin_socket);
    if let Some(Err(error)) = predecessor.map(Predecessor::ready) {
        tracing::warn!("the predecessor did not confirm that it stops: {error}");
    }
    let handover = sockets.and_then(|sockets| HandoverListener::open(&config.data_dir, sockets));
    let handover = handover.inspect_err(|error| tracing::warn!("sockets cannot be handed over to a successor: {error}")).ok();
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, threads = config.threads, gateway_id = %config.gateway_id, "serving");

    let succeeded = runtime.block_on(run_until_stopped(admin, Reloads { trust, listener: tls_listener }, handover));
    tracing::info!(succeeded, "stopping: finishing what runs");
    servers.stop(config.drain, succeeded);
    if let Some(exporter) = exporter {
        exporter.stop(SPAN_GRACE_PERIOD);
    }
    control.stop(config.drain.min(SHIP_GRACE_PERIOD_MAX));
    log.stop();
    tracing::info!("stopped");
    Ok(())
}

fn request_log(config: &Config) -> Result<Option<RequestLog>, StartError> {
    let log = config.request_log.as_ref().map(|log| RequestLog::start(&log.file, log.ratio, log.bodies));
    log.transpose().map_err(StartError::RequestLog)
}

fn export(config: &Config, trust: &Arc<TrustStore>) -> Result<Option<Exporter>, StartError> {
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok(None);
    };
    let trust = trust.clone();
    Ok(Some(Exporter::start(endpoint, config.trace_sample_ratio, Box::new(move || trust.config()))?))
}

/// A start without control plane serves from the saved snapshot.
fn restore(disk: &LastKnownGood, store: &mut Store, freshness: &Freshness) {
    match disk.read() {
        Ok(Some(saved)) => {
            tracing::info!(revision = saved.update.revision, "last known good snapshot restored");
            freshness.restore(saved.last_contact_unix_ms);
            store.apply(saved.update);
        }
        Ok(None) => {}
        Err(error) => tracing::error!("the last known good snapshot is not used: {error}"),
    }
}

/// Runs until a signal or a successor. True for a successor; the sockets it took over are then closed here.
async fn run_until_stopped(admin: Admin, reloads: Reloads, handover: Option<HandoverListener>) -> bool {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be received");
        return false;
    };
    let succeeded = async {
        match handover {
            Some(handover) => handover.until_succeeded().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = succeeded => true,
        () = serve_admin(admin) => false,
        () = reloads.poll_loop() => false,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    }
}

fn admin_listener(address: SocketAddr, inherited: Option<std::net::TcpListener>) -> Result<std::net::TcpListener, StartError> {
    let fail = |e| StartError::Admin(address, e);
    let listener = inherited.map_or_else(|| std::net::TcpListener::bind(address), Ok).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

fn clones(callers: &[std::net::TcpListener], grpc: &[std::net::TcpListener], admin: &std::net::TcpListener) -> io::Result<Sockets> {
    let callers = callers.iter().map(|socket| (Role::Callers, socket));
    let grpc = grpc.iter().map(|socket| (Role::Grpc, socket));
    callers.chain(grpc).chain([(Role::Admin, admin)]).map(|(role, socket)| Ok((role, socket.try_clone()?))).collect()
}

/// A process without a snapshot would refuse calls that its predecessor serves.
fn wait_for_snapshot(shared: &SharedState) -> Result<(), StartError> {
    let deadline = Instant::now() + SNAPSHOT_WAIT_MAX;
    while !shared.snapshots.load().is_known() {
        if Instant::now() > deadline {
            return Err(StartError::NotReady);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// Files that are read again when they change.
struct Reloads {
    trust: Arc<TrustStore>,
    listener: Option<Arc<TlsListener>>,
}

impl Reloads {
    /// Checks the files at intervals, and at once on SIGHUP.
    async fn poll_loop(self) {
        let mut ticks = tokio::time::interval(FILE_POLL_INTERVAL);
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return std::future::pending().await;
        };
        loop {
            let forced = tokio::select! {
                _ = ticks.tick() => false,
                _ = hangup.recv() => true,
            };
            self.trust.reload(forced);
            if let Some(listener) = &self.listener {
                listener.reload(forced);
            }
        }
    }
}

/// A stream is two descriptors; the usual soft limit of 1024 is five hundred streams.
#[allow(unsafe_code)] // two plain system calls on a local struct
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a struct of the right type.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::warn!("the limit of open files could not be raised");
    }
}
