//! A real Docker engine of the tests' own, gone when the last test that uses
//! it ends. It has its own files and its own network: no bridge, rule or port
//! of it touches the machine's.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mcp_fleet::engine::{self, Reach};

/// The image there is: `support/workload.c` and nothing else.
pub(crate) const IMAGE: &str = "mcp-fleet-test/workload:1";

/// Leaves out what needs an engine.
const SKIP: &str = "MCP_FLEET_SKIP_DEPLOY";

static SHARED: Mutex<Weak<Dockerd>> = Mutex::new(Weak::new());

/// An engine that runs, or can be made to.
pub(crate) struct Dockerd {
    directory: tempfile::TempDir,
    running: Mutex<Option<Running>>,
}

struct Running {
    id: u32,
    /// Waits for its end. The engine ends with this thread, so also when this
    /// process is killed.
    waiting: JoinHandle<()>,
}

impl Dockerd {
    /// The one that tests share which leave it as it is; `None`: tests of
    /// this kind are to be left out.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = shared.upgrade() {
            return Some(there);
        }
        let made = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&made);
        Some(made)
    }

    /// One of the test's own, with the image.
    pub(crate) fn start() -> Option<Self> {
        if std::env::var_os(SKIP).is_some_and(|skip| !skip.is_empty()) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("mcp-fleet-docker-")
            .tempdir()
            .expect("a temporary directory");
        let dockerd = Self {
            directory,
            running: Mutex::default(),
        };
        dockerd.run();
        dockerd.build_workload();
        dockerd.import(IMAGE, &["ENTRYPOINT [\"/workload\"]", "CMD [\"wait\"]"]);
        Some(dockerd)
    }

    /// Runs it, as often as it was stopped.
    pub(crate) fn run(&self) {
        let root = self.directory.path();
        let log = std::fs::File::create(self.path("log")).expect("a file");
        std::fs::write(self.path("none.json"), "{}").expect("a file");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let name = text(Path::new(root.file_name().expect("a name")));
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "SIGTERM", "unshare", "--net", "sh", "-c"])
            .args(["ip link set lo up && exec dockerd \"$@\"", "dockerd"])
            .args([
                "--host",
                &self.host(),
                "--data-root",
                &text(&self.path("data")),
            ])
            .args(["--exec-root", &text(&self.path("exec"))])
            .args(["--pidfile", &text(&self.path("pid"))])
            .args(["--config-file", &text(&self.path("none.json"))])
            .args(["--bridge", "none", "--log-level", "warn"])
            .args(["--containerd-namespace", &name])
            .args(["--containerd-plugins-namespace", &format!("{name}-p")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let child = command.spawn();
            let id = child.as_ref().map(Child::id).map_err(ToString::to_string);
            tell.send(id).ok();
            if let Ok(mut child) = child {
                child.wait().ok();
            }
        });
        let id = match told.recv().expect("an answer") {
            Ok(id) => id,
            Err(error) => self.cannot(&error),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_docker(&["info"]).is_none() {
            if waiting.is_finished() || Instant::now() > deadline {
                self.cannot("dockerd did not come up");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.running() = Some(Running { id, waiting });
    }

    fn cannot(&self, why: &str) -> ! {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| !line.contains("level=info"))
            .collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n");
        panic!(
            "These tests need a Docker engine, and here none can be started: {why}\n{end}\n\
             It takes root and Debian's docker.io, iproute2 and util-linux. {SKIP}=1 leaves them out."
        );
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(&self) {
        if let Some(running) = self.running().take() {
            signal("-TERM", running.id);
            running
                .waiting
                .join()
                .expect("a thread that does not panic");
        }
    }

    /// Halts it: it accepts connections and never answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let running = self.running();
        signal(name, running.as_ref().expect("it runs").id);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its address.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Settings for a node on its machine.
    pub(crate) fn settings(&self) -> engine::Settings {
        engine::Settings {
            host: self.host(),
            registry_mirror: None,
            reach: Reach::Auto,
            publish_address: std::net::Ipv4Addr::LOCALHOST.into(),
            bridge: Some(self.bridge()),
            timeout: Duration::from_secs(60),
            pull_timeout: Duration::from_secs(60),
            max_in_flight: 4,
            fresh: Duration::from_secs(60),
        }
    }

    /// A static program under the bridge's name.
    pub(crate) fn bridge(&self) -> PathBuf {
        self.path("mcp-fleet-bridge")
    }

    /// What a `docker` command prints.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let done = self
            .command(arguments)
            .output()
            .expect("docker is installed");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "docker {arguments:?}: {said}");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    pub(crate) fn try_docker(&self, arguments: &[&str]) -> Option<String> {
        let done = self
            .command(arguments)
            .output()
            .expect("docker is installed");
        let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        done.status.success().then_some(said)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.path("config"))
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY");
        command
    }

    /// A command in the engine's network, as a node on its machine would run.
    pub(crate) fn on_its_machine(&self, program: &str) -> Command {
        let id = self.running().as_ref().expect("it runs").id.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &id, program]);
        command
    }

    fn build_workload(&self) {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/workload.c");
        let built = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(self.workload())
            .arg(source)
            .status()
            .expect("a C compiler is installed");
        assert!(built.success());
        std::fs::copy(self.workload(), self.bridge()).expect("copied");
    }

    pub(crate) fn workload(&self) -> PathBuf {
        self.path("workload")
    }

    /// Makes an image of the workload.
    pub(crate) fn import(&self, name: &str, changes: &[&str]) {
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_path_with_name(self.workload(), "workload")
            .expect("a file");
        let file = self.path("image.tar");
        std::fs::write(&file, archive.into_inner().expect("an archive")).expect("a file");
        let changes = changes.iter().flat_map(|change| ["--change", change]);
        let file = file.to_str().expect("text");
        let command: Vec<_> = ["import"]
            .into_iter()
            .chain(changes)
            .chain([file, name])
            .collect();
        self.docker(&command);
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Containers that ignore what they are told would delay its end.
        if let Some(left) = self.try_docker(&["ps", "--all", "--quiet"]) {
            let left: Vec<_> = left.split_whitespace().collect();
            if !left.is_empty() {
                self.try_docker(&[&["rm", "--force", "--volumes"], &*left].concat());
            }
        }
        self.stop();
    }
}

fn signal(name: &str, id: u32) {
    let sent = Command::new("kill")
        .args([name, &id.to_string()])
        .status()
        .expect("kill is installed");
    assert!(sent.success());
}
