//! A road to a server that can be slow, or lost without a word.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
};

use super::wire::Owned;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// It arrives.
    Open,
    /// Each piece arrives so much later.
    Slow(Duration),
    /// Nothing arrives until this is over; then all of it does.
    Held,
    /// It is lost, and connections stay open: those of now for ever, as behind
    /// a firewall that forgot them.
    Lost,
}

/// A text of what the server says, and what the client reads instead. Both are
/// of one length, so that counted lengths stay true.
pub(crate) type Rewrite = (String, String);

/// Listens in front of a server. Connections end with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    road: watch::Sender<Road>,
    rewrite: watch::Sender<Option<Rewrite>>,
    _accepting: Owned<()>,
}

impl Proxy {
    /// In front of the server at that port of the loopback interface.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let road = watch::Sender::new(Road::Open);
        let rewrite = watch::Sender::new(None);
        let (conditions, rewrites) = (road.subscribe(), rewrite.subscribe());
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let (road, rewrite) = (conditions.clone(), rewrites.clone());
                connections.spawn(carry(client, port, road, rewrite));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            road,
            rewrite,
            _accepting: Owned(accepting),
        }
    }

    /// From now on.
    pub(crate) fn set(&self, road: Road) {
        self.road.send_replace(road);
    }

    /// From now on.
    pub(crate) fn rewrite(&self, rewrite: Option<Rewrite>) {
        if let Some((from, to)) = &rewrite {
            assert_eq!(from.len(), to.len());
        }
        self.rewrite.send_replace(rewrite);
    }
}

async fn carry(
    client: TcpStream,
    port: u16,
    road: watch::Receiver<Road>,
    rewrite: watch::Receiver<Option<Rewrite>>,
) {
    // Refused by the server: refused, in effect.
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return;
    };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let as_it_is = watch::Sender::new(None).subscribe();
    tokio::select! {
        () = pump(client_reads, server_writes, road.clone(), as_it_is) => {}
        () = pump(server_reads, client_writes, road, rewrite) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut road: watch::Receiver<Road>,
    rewrite: watch::Receiver<Option<Rewrite>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            // For good, and not even its end is heard of at the other side.
            () = is_lost(&mut road) => return std::future::pending().await,
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        let now = *road.borrow();
        if let Road::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        // The proxy is gone: nobody waits for what it holds.
        road.wait_for(|road| *road != Road::Held).await.ok();
        let piece = &mut buffer[..count];
        if let Some((from, to)) = &*rewrite.borrow() {
            replace(piece, from.as_bytes(), to.as_bytes());
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn is_lost(road: &mut watch::Receiver<Road>) {
    // The proxy is gone, and its connections with it.
    road.wait_for(|road| *road == Road::Lost).await.ok();
}

fn replace(piece: &mut [u8], from: &[u8], to: &[u8]) {
    for at in 0..piece.len().saturating_sub(from.len() - 1) {
        if &piece[at..at + from.len()] == from {
            piece[at..at + to.len()].copy_from_slice(to);
        }
    }
}
