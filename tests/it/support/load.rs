//! Clients at work behind a plain load balancer: each request goes to the next
//! node, on a connection of its own. A node that refuses a connection gets
//! nothing more, and that request goes to another node, once.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::sync::watch;

use super::{
    client::call,
    eventually,
    wire::{Owned, PATIENCE},
};

/// Clients at a time.
pub(crate) const CLIENTS: usize = 4;

/// A call that was not answered as it should have been.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) node: SocketAddr,
    pub(crate) begun: Instant,
    /// Which call: its argument.
    pub(crate) number: u64,
    pub(crate) why: String,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) answered: u64,
    /// Second attempts.
    pub(crate) retried: u64,
    pub(crate) failed: Vec<Failed>,
    pub(crate) longest: Duration,
}

impl Report {
    /// Every call was answered.
    pub(crate) fn nobody_failed(&self) {
        let first = self.failed.first();
        assert!(first.is_none(), "{} failed: {first:?}", self.failed.len());
    }
}

/// Runs until dropped.
pub(crate) struct Load {
    report: Arc<Mutex<Report>>,
    stop: watch::Sender<bool>,
    clients: Vec<Owned<()>>,
}

struct Client {
    /// Those that refused no connection yet.
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    report: Arc<Mutex<Report>>,
    next: Arc<AtomicU64>,
}

impl Load {
    /// Calls of `echo` at the server `up`, and waits until they flow.
    pub(crate) async fn on(nodes: &[SocketAddr]) -> Self {
        let stop = watch::Sender::new(false);
        let report = Arc::new(Mutex::new(Report::default()));
        let next = Arc::new(AtomicU64::new(0));
        let nodes = Arc::new(Mutex::new(nodes.to_vec()));
        let clients = (0..CLIENTS)
            .map(|_| {
                let client = Client {
                    nodes: Arc::clone(&nodes),
                    report: Arc::clone(&report),
                    next: Arc::clone(&next),
                };
                Owned(tokio::spawn(client.run(stop.subscribe())))
            })
            .collect();
        let load = Self {
            report,
            stop,
            clients,
        };
        load.flows().await;
        load
    }

    pub(crate) fn report(&self) -> Report {
        self.report.lock().expect("not poisoned").clone()
    }

    /// Waits until a hundred more calls were answered.
    pub(crate) async fn flows(&self) {
        let before = self.report().answered;
        eventually("calls are answered", async || {
            self.report().answered >= before + 100
        })
        .await;
    }

    /// Lets what is under way finish.
    pub(crate) async fn ends(mut self) -> Report {
        self.stop.send_replace(true);
        for client in &mut self.clients {
            (&mut client.0).await.expect("no panic");
        }
        let report = self.report();
        println!(
            "calls: {} answered, {} retried, {} failed, longest {:?}",
            report.answered,
            report.retried,
            report.failed.len(),
            report.longest
        );
        for failed in report.failed.iter().take(10) {
            println!("call {} at {}: {}", failed.number, failed.node, failed.why);
        }
        report
    }
}

impl Client {
    fn nodes(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.nodes.lock().expect("not poisoned")
    }

    fn node(&self, number: u64) -> SocketAddr {
        let nodes = self.nodes();
        assert!(!nodes.is_empty(), "all nodes refuse connections");
        nodes[usize::try_from(number).expect("few") % nodes.len()]
    }

    async fn run(self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let mut node = self.node(number);
            let begun = Instant::now();
            let mut done = ask(node, number).await;
            let mut retried = 0;
            if matches!(&done, Err(error) if was_refused(error)) {
                retried = 1;
                self.nodes().retain(|one| *one != node);
                node = self.node(number);
                done = ask(node, number).await;
            }
            let mut report = self.report.lock().expect("not poisoned");
            report.retried += retried;
            report.longest = report.longest.max(begun.elapsed());
            match done {
                Ok(()) => report.answered += 1,
                Err(error) => report.failed.push(Failed {
                    node,
                    begun,
                    number,
                    why: format!("{error:#}"),
                }),
            }
        }
    }
}

async fn ask(node: SocketAddr, number: u64) -> anyhow::Result<()> {
    let exchange = async {
        let reply = call("echo", json!({"n": number})).try_at(node).await?;
        let status = reply.status;
        let text = reply.try_text().await?;
        let echo = format!("\"n\":{number}}}");
        anyhow::ensure!(status == 200 && text.contains(&echo), "{status} {text}");
        Ok(())
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

fn was_refused(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}
