//! The control thread: one runtime for updates, key requests, leases, shipping and saving.

use crate::channel::{Client, ControlError, ControlPlane, UsageClient, clients};
use crate::key_resolver::{KeyResolver, KeyResolverState, ResolveRequest, run_key_resolver};
use crate::lease_stream::{LeaseState, run_leases};
use crate::saving::{run_saving, save};
use crate::snapshot_writer::SnapshotWriter;
use crate::status::ControlStatus;
use crate::subscription::Subscription;
use crate::usage_stream::UsageStream;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tenon_limits::LimitRegistry;
use tenon_snapshot::{Freshness, LastKnownGood, Store};
use tenon_usage::Shipper;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

/// What the thread takes over.
pub struct ControlParts {
    pub store: Store,
    pub freshness: Arc<Freshness>,
    pub disk: LastKnownGood,
    pub shipper: Shipper,
    /// Limits and budgets: their shares and leases are requested here.
    pub limits: Arc<LimitRegistry>,
}

pub struct Control {
    pub key_resolver: KeyResolver,
    pub status: Arc<ControlStatus>,
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
}

impl Control {
    /// # Errors
    /// When the address or the identity cannot be used, or no thread can be started. An absent control plane is no
    /// error.
    pub fn start(control_plane: ControlPlane, parts: ControlParts) -> Result<Self, ControlError> {
        let (key_resolver, requests) = KeyResolver::new();
        let status = Arc::new(ControlStatus::new(parts.store.sync_stats()));
        let (stop, stopped) = oneshot::channel();
        let (transport, identity) = (control_plane.transport()?, control_plane.identity()?);
        let thread_status = status.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Thread)?;
        let body = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let clients = clients(transport, identity);
                run(clients, control_plane.gateway_id, parts, thread_status, requests, stopped).await;
            });
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(body).map_err(ControlError::Thread)?;
        Ok(Self { key_resolver, status, stop, thread })
    }

    /// Ships the calls that have ended, for at most `grace_period`, then ends the thread. The rest stays in the log for
    /// the next start.
    pub fn stop(self, grace_period: Duration) {
        if self.stop.send(grace_period).is_ok() && self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

async fn run(
    (client, usage_client): (Client, UsageClient),
    gateway_id: String,
    parts: ControlParts,
    status: Arc<ControlStatus>,
    requests: mpsc::Receiver<ResolveRequest>,
    stopped: oneshot::Receiver<Duration>,
) {
    let writer = Rc::new(SnapshotWriter::new(parts.store, parts.freshness));
    let shipper = Rc::new(RefCell::new(parts.shipper));
    let unknown_keys = Rc::default();
    let key_resolver = Rc::new(KeyResolverState::new(writer.clone(), Rc::clone(&unknown_keys)));
    let subscription = Subscription { writer: writer.clone(), unknown_keys, status: status.clone(), gateway_id };
    let (close_leases, closing) = oneshot::channel();
    spawn_local(subscription.run(client.clone()));
    spawn_local(run_key_resolver(key_resolver, client.clone(), requests));
    let leases = spawn_local(run_leases(LeaseState::new(parts.limits, shipper.clone()), client, closing));
    spawn_local(UsageStream { shipper: shipper.clone(), status }.run(usage_client));
    spawn_local(run_saving(writer.clone(), parts.disk.clone()));
    let grace_period = stopped.await.unwrap_or_default();
    let deadline = Instant::now() + grace_period;
    while !shipper.borrow_mut().is_shipped() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The reactors have ended, so everything is settled: what the leases still hold is returned.
    if close_leases.send(()).is_ok() && leases.await.is_err() {
        tracing::error!("the lease task panicked");
    }
    save(&writer, &parts.disk).await;
}
