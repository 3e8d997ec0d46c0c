//! How fast clients may call: tokens of limits that the whole fleet shares.
//!
//! The store decides ([`crate::store::rates`]). A node takes tokens in batches
//! that follow demand, so that a busy client does not cost a command per call,
//! and lets go of those it does not use soon. While the store is away each node
//! gives out its share. Without limits nothing of this is on the way of a call.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use self::stock::{Draw, Stock};
use crate::{
    cluster::membership::Membership,
    ids::ServerId,
    mcp::method,
    store::{
        ShortDigest, Store, StoreError,
        rates::{Rate, RateKey, Taken, take},
    },
};

mod stock;

/// Limits of which this node remembers something.
const MAX_LIMITS: u64 = 100_000;
/// After this long unused there is nothing worth remembering: what was taken
/// is in the store.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// What a batch of tokens is to last for at the limit's own rate.
const BATCH: Duration = Duration::from_millis(150);

/// Who calls, as far as limits go: an address, of IPv6 the network (/64) that
/// one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

/// The limits of one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerRates {
    /// For every client.
    pub all: Option<Rate>,
    /// For every client and single tools.
    pub tools: BTreeMap<String, Rate>,
}

/// The client has to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: {what} allows no more now; try again in {}s", after.as_secs())]
pub struct Limited {
    /// Which limit.
    pub what: Scope,
    /// When one more is allowed; whole seconds.
    pub after: Duration,
}

/// What a limit is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All servers together.
    Fleet,
    /// One server.
    Server(ServerId),
    /// One tool of a server.
    Tool(ServerId, String),
}

/// Keeps clients within their limits.
#[derive(Debug)]
pub struct Limiter {
    principal: Option<Rate>,
    store: Arc<dyn Store>,
    membership: Arc<Membership>,
    limits: moka::sync::Cache<ShortDigest, Arc<Limit>>,
    started: Instant,
}

/// One limit of one client, as this node knows it.
#[derive(Debug, Default)]
struct Limit {
    stock: Mutex<Stock>,
    /// One batch at a time.
    taking: tokio::sync::Mutex<()>,
}

impl Client {
    /// The client at an address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(network.into())
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl Client {
    /// A client whose address is not known: all of them together.
    pub const UNKNOWN: Self = Self(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
}

impl ServerRates {
    fn is_off(&self) -> bool {
        self.all.is_none() && self.tools.is_empty()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("your limit"),
            Self::Server(server) => write!(f, "your limit at server {server}"),
            Self::Tool(server, tool) => {
                write!(f, "your limit for tool {tool:?} of server {server}")
            }
        }
    }
}

impl Limiter {
    /// Limits of `principal` for every client; servers bring their own.
    #[must_use]
    pub fn new(
        principal: Option<Rate>,
        store: Arc<dyn Store>,
        membership: Arc<Membership>,
    ) -> Self {
        Self {
            principal,
            store,
            membership,
            limits: moka::sync::Cache::builder()
                .max_capacity(MAX_LIMITS)
                .time_to_idle(FORGOTTEN)
                .build(),
            started: Instant::now(),
        }
    }

    /// Counts a request of a client to a server, whose `name` is the tool's.
    ///
    /// # Errors
    /// When the client has to wait.
    pub async fn admit(
        &self,
        client: Client,
        (server, rates): (&ServerId, &ServerRates),
        method: &str,
        name: Option<&str>,
    ) -> Result<(), Limited> {
        if self.principal.is_none() && rates.is_off() {
            return Ok(());
        }
        if !is_limited(method) {
            return Ok(());
        }
        let mut admitted: Vec<Arc<Limit>> = Vec::new();
        for (what, rate) in self.limits_of(server, rates, method, name) {
            let key = key(client, &what);
            let limit = self.limits.get_with(key, Arc::default);
            if let Err(wait) = self.draw(&limit, key, rate).await {
                // What the other limits gave was not used.
                for limit in admitted {
                    lock(&limit.stock).give_back();
                }
                let seconds = wait.as_micros().div_ceil(1_000_000).max(1);
                let after = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
                return Err(Limited { what, after });
            }
            admitted.push(limit);
        }
        Ok(())
    }

    /// From the narrowest to the widest.
    fn limits_of(
        &self,
        server: &ServerId,
        rates: &ServerRates,
        method: &str,
        name: Option<&str>,
    ) -> impl Iterator<Item = (Scope, Rate)> {
        let tool = name
            .filter(|_| method == method::TOOLS_CALL)
            .and_then(|tool| {
                let rate = rates.tools.get(tool)?;
                Some((Scope::Tool(server.clone(), tool.to_owned()), *rate))
            });
        let all = rates.all.map(|rate| (Scope::Server(server.clone()), rate));
        let fleet = self.principal.map(|rate| (Scope::Fleet, rate));
        [tool, all, fleet].into_iter().flatten()
    }

    /// One token, or how long to wait for it.
    async fn draw(&self, limit: &Limit, key: ShortDigest, rate: Rate) -> Result<(), Duration> {
        if let Some(drawn) = drawn(limit) {
            return drawn;
        }
        let _one_batch_at_a_time = limit.taking.lock().await;
        if let Some(drawn) = drawn(limit) {
            return drawn;
        }
        let nodes = self.membership.view().count();
        let most = rate.within(BATCH).min(rate.share(nodes).burst / 2).max(1);
        let wanted = lock(&limit.stock).wanted(Instant::now(), most);
        let taken = self.store.take_tokens(&RateKey(key), &rate, wanted).await;
        let now = Instant::now();
        let mut stock = lock(&limit.stock);
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                if let StoreError::Refused(_) = &error {
                    tracing::warn!(%error, "a rate limit is kept by this node alone");
                }
                self.take_alone(&mut stock, rate.share(nodes), now)
            }
        };
        // In one step with the draw: others may be waiting for the same tokens.
        stock.refill(taken, now);
        match stock.draw(now) {
            Draw::Token => Ok(()),
            Draw::Refused(wait) => Err(wait),
            Draw::Empty => Err(Duration::ZERO),
        }
    }

    /// A token of this node's share, on its own clock.
    fn take_alone(&self, stock: &mut Stock, share: Rate, now: Instant) -> Taken {
        let clock = now.duration_since(self.started).as_micros();
        let clock = u64::try_from(clock).unwrap_or(u64::MAX);
        let (alone, taken) = take(stock.alone, clock, share, 1);
        stock.alone = alone;
        taken
    }
}

/// What the stock at hand says; `None` when it is empty.
fn drawn(limit: &Limit) -> Option<Result<(), Duration>> {
    match lock(&limit.stock).draw(Instant::now()) {
        Draw::Token => Some(Ok(())),
        Draw::Refused(wait) => Some(Err(wait)),
        Draw::Empty => None,
    }
}

/// Requests that reach a server and make it work.
fn is_limited(method: &str) -> bool {
    [
        method::TOOLS_CALL,
        method::PROMPTS_GET,
        method::RESOURCES_READ,
        method::COMPLETE,
    ]
    .contains(&method)
}

fn key(Client(address): Client, what: &Scope) -> ShortDigest {
    let address = address.to_string();
    let (kind, server, tool) = match what {
        Scope::Fleet => ("fleet", "", ""),
        Scope::Server(server) => ("server", server.as_str(), ""),
        Scope::Tool(server, tool) => ("tool", server.as_str(), tool.as_str()),
    };
    ShortDigest::of(&[kind, &address, server, tool].map(str::as_bytes))
}

fn lock(stock: &Mutex<Stock>) -> MutexGuard<'_, Stock> {
    // Only numbers and times: whole also after a panic.
    stock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
