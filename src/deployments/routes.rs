//! From what runs to what can be dialled: the same on every node, since it
//! follows from the record alone.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use http::Uri;

use super::record::{Record, ReplicaRecord};
use crate::{
    balance::Policy,
    ids::ServerId,
    registry::DEPLOYMENT,
    servers::{Endpoint, Replica, Server},
    store::registry::Edition,
};

/// The replicas that this node knows, so that one stays what it is while its
/// address does: what is known of it, and calls in flight.
#[derive(Debug, Default)]
pub struct Routes {
    replicas: HashMap<Key, Weak<Replica>>,
    servers: HashMap<String, Arc<Server>>,
}

/// A server, an address, and whom tokens are made for.
type Key = (ServerId, String, Option<String>);

impl Routes {
    /// The replica at that address, the one that is known when there is one.
    pub fn replica(
        &mut self,
        server: &ServerId,
        url: &str,
        audience: Option<&str>,
    ) -> Option<Arc<Replica>> {
        let key = (
            server.clone(),
            url.to_owned(),
            audience.map(ToOwned::to_owned),
        );
        if let Some(known) = self.replicas.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        let uri: Uri = url.parse().ok()?;
        let replica = Replica::new(server.clone(), Endpoint::Http(uri), 1);
        let replica = Arc::new(match audience {
            Some(audience) => replica.signed(audience),
            None => replica,
        });
        self.replicas.retain(|_, known| known.strong_count() > 0);
        self.replicas.insert(key, Arc::downgrade(&replica));
        Some(replica)
    }

    /// The servers of these records; those that have not changed are the same
    /// as before.
    pub fn servers<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        timeout: Duration,
    ) -> Vec<Arc<Server>> {
        let mut before = std::mem::take(&mut self.servers);
        let mut servers = Vec::new();
        for record in records {
            let Some(server) = self.server(record, before.remove(&record.name), timeout) else {
                continue;
            };
            self.servers
                .insert(record.name.clone(), Arc::clone(&server));
            servers.push(server);
        }
        servers
    }

    fn server(
        &mut self,
        record: &Record,
        before: Option<Arc<Server>>,
        timeout: Duration,
    ) -> Option<Arc<Server>> {
        let id = ServerId::try_from(record.name.as_str()).ok()?;
        let routed = record.replicas.iter().filter(|one| one.routed);
        let replicas: Vec<_> = routed
            .filter_map(|one| self.replica(&id, one.url.as_deref()?, one.audience.as_deref()))
            .collect();
        if replicas.is_empty() {
            return None;
        }
        let timeout = record.timeout_ms.map_or(timeout, Duration::from_millis);
        let edition = edition(record);
        let is_same = |known: &Arc<Server>| {
            known.edition == edition
                && known.timeout == timeout
                && known.replicas.len() == replicas.len()
                && known
                    .replicas
                    .iter()
                    .zip(&replicas)
                    .all(|(one, other)| Arc::ptr_eq(one, other))
        };
        if let Some(same) = before.filter(is_same) {
            return Some(same);
        }
        let server = Server::new(id, replicas, Policy::default(), timeout, DEPLOYMENT);
        Some(Arc::new(server.of_edition(edition)))
    }
}

/// What one version says is not what the next says: the hash of what the most
/// recent of the routed replicas run.
fn edition(record: &Record) -> Edition {
    let routed = || record.replicas.iter().filter(|one| one.routed);
    let is_wanted = |one: &&ReplicaRecord| one.spec == record.spec;
    let newest = routed().find(is_wanted).or_else(|| routed().next());
    let hash = newest.and_then(|one| u64::from_str_radix(&one.spec, 16).ok());
    Edition(hash.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployments::record::{Phase, ReplicaState};

    fn record(urls: &[&str]) -> Record {
        let replica = |url: &&str| ReplicaRecord {
            url: Some((*url).to_owned()),
            audience: Some(format!("at {url}")),
            routed: true,
            spec: "0000000a".to_owned(),
            state: ReplicaState::Ready,
            ..ReplicaRecord::default()
        };
        Record {
            name: "notes".to_owned(),
            phase: Phase::Ready,
            spec: "0000000a".to_owned(),
            replicas: urls.iter().map(replica).collect(),
            timeout_ms: Some(1500),
            ..Record::default()
        }
    }

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_replica_stays_what_it_is_while_its_address_does() {
        let mut routes = Routes::default();
        let one = record(&["http://10.0.0.2:1/mcp"]);
        let first = routes.servers([&one].into_iter(), LIMIT);
        assert_eq!(first[0].timeout, Duration::from_millis(1500));
        assert_eq!(
            (first[0].origin, first[0].edition),
            ("deployment", Edition(10))
        );
        let again = routes.servers([&one].into_iter(), LIMIT);
        assert!(Arc::ptr_eq(&first[0], &again[0]));
        let two = record(&["http://10.0.0.3:1/mcp", "http://10.0.0.2:1/mcp"]);
        let more = routes.servers([&two].into_iter(), LIMIT);
        assert!(Arc::ptr_eq(&first[0].replicas[0], &more[0].replicas[1]));
        // The address is another container's now.
        let mut other = one.clone();
        other.replicas[0].audience = Some("another".to_owned());
        let other = routes.servers([&other].into_iter(), LIMIT);
        assert!(!Arc::ptr_eq(&first[0].replicas[0], &other[0].replicas[0]));
    }

    #[test]
    fn what_no_calls_go_to_is_no_server() {
        let mut routes = Routes::default();
        let mut none = record(&["http://10.0.0.2:1/mcp"]);
        none.replicas[0].routed = false;
        assert!(routes.servers([&none].into_iter(), LIMIT).is_empty());
        let mut nowhere = record(&["http://10.0.0.2:1/mcp"]);
        nowhere.replicas[0].url = None;
        assert!(routes.servers([&nowhere].into_iter(), LIMIT).is_empty());
    }
}
