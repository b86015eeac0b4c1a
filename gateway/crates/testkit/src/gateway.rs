//! The gateway's own process under test.

use crate::client::{Client, get};
use crate::control::{Control, TOKEN};
use crate::keys::SEALING_KEY;
use crate::ports::reserved_address;
use crate::wait::wait_for;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub const GATEWAY_ID: &str = "gw-test";

/// The environment of a gateway. The data directory outlives the process, so that the next start finds it.
pub struct Setup {
    pub binary: PathBuf,
    pub data: tempfile::TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub control: SocketAddr,
    pub environment: Vec<(&'static str, String)>,
}

pub struct Gateway {
    pub child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Setup {
    pub fn new(binary: &str, control: &Control) -> Self {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("token"), TOKEN).unwrap();
        std::fs::write(data.path().join("sealing"), SEALING_KEY).unwrap();
        let environment = vec![("TENON_GATEWAY_WAL_SEGMENT_BYTES", (1 << 20).to_string()), ("TENON_GATEWAY_THREADS", "2".into())];
        Self { binary: binary.into(), data, address: reserved_address(), admin: reserved_address(), control: control.address, environment }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("TENON_GATEWAY_LISTEN", self.address.to_string())
            .env("TENON_GATEWAY_ADMIN_LISTEN", self.admin.to_string())
            .env("TENON_GATEWAY_CONTROL_URL", format!("http://{}", self.control))
            .env("TENON_GATEWAY_ID", GATEWAY_ID)
            .env("TENON_GATEWAY_TOKEN_FILE", self.data.path().join("token"))
            .env("TENON_GATEWAY_SEALING_KEY_FILE", self.data.path().join("sealing"))
            .env("TENON_GATEWAY_DATA_DIR", self.data.path().join("data"))
            .env("TENON_LOG", std::env::var("TENON_LOG").unwrap_or("warn".into()))
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stderr(if std::env::var_os("TENON_LOG").is_some() { Stdio::inherit() } else { self.log_file() });
        command
    }

    fn log_file(&self) -> Stdio {
        std::fs::OpenOptions::new().create(true).append(true).open(self.data.path().join("log")).unwrap().into()
    }

    /// The log lines of all its starts so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.data.path().join("log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }

    /// Starts it and waits until it listens.
    pub fn spawn(&self) -> Gateway {
        let mut gateway = Gateway { child: self.command().spawn().unwrap(), address: self.address, admin: self.admin };
        wait_for("the gateway listens", || {
            assert!(gateway.child.try_wait().unwrap().is_none(), "the gateway ended immediately");
            std::net::TcpStream::connect(gateway.admin).is_ok() && std::net::TcpStream::connect(gateway.address).is_ok()
        });
        gateway
    }

    /// Starts it and waits until it has synchronised with the control plane.
    pub fn start(&self) -> Gateway {
        let gateway = self.spawn();
        wait_for("the gateway is ready", || gateway.readiness() == (200, "ready\n".into()));
        gateway
    }
}

impl Gateway {
    pub fn readiness(&self) -> (u16, String) {
        let answer = get(self.admin, "/readyz", "");
        (answer.status, answer.text())
    }

    /// The value of a metric; the name includes the labels as they are printed.
    pub fn metric(&self, name: &str) -> f64 {
        let page = get(self.admin, "/metrics", "").text();
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in\n{page}"))
    }

    /// As [`Self::metric`]; `None` when there is no answer: a predecessor that ends may close a connection of its admin listener.
    pub fn try_metric(&self, name: &str) -> Option<f64> {
        let mut client = Client::connect(self.admin).ok()?;
        client.write(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n").ok()?;
        let mut answer = client.try_head().ok()?;
        client.read_body(&mut answer);
        let page = answer.text();
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until it serves this revision.
    pub fn wait_revision(&self, revision: u64) {
        wait_for("the revision arrives", || self.metric("tenon_gateway_revision") >= revision as f64);
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub fn wait_end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
