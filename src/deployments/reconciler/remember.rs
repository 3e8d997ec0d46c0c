//! What was there before this node looked after the engine: what others have
//! written down, and what runs though nothing says why.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{Watch, as_it_is};
use crate::{
    deployments::{
        Deployments, Wanted,
        definition::{Definition, Wish},
        history::History,
        naming::Found,
        plan::{Goal, Life, Plan},
        record::Phase,
        status::Situation,
    },
    fleet::News,
    store::{
        Fence, StoreError,
        registry::{Change, Changed, Edition},
    },
};

impl Watch {
    /// Puts what runs, and nothing says why, back into the table: the store has
    /// lost it, and no node was there to put it back. Whether that was done.
    pub(super) async fn adopt(
        &mut self,
        name: &str,
        found: &[Found],
        fence: Option<Fence>,
    ) -> bool {
        let is_removed = self.node.known().removed.contains(name);
        if fence.is_none() || is_removed || !self.node.table.is_read() {
            return false;
        }
        let Goal::Run { spec, replicas } = as_it_is(found) else {
            return false;
        };
        let mut of_spec = found.iter().filter(|found| found.seen.spec == spec);
        let Some(told) = of_spec.find_map(Found::definition) else {
            return false;
        };
        if self.node.parts.registry.taken(name).is_some() || told.name != name {
            return false;
        }
        let adopted = Definition {
            replicas,
            engine: self.engine.clone(),
            wish: Wish::Run,
            adopted: Some(spec),
            ..told
        };
        let Ok(encoded) = adopted.encode() else {
            return false;
        };
        let change = Change::Put {
            name: name.to_owned(),
            definition: encoded.into(),
            most: self.node.settings.most,
            // Somebody may know it after all.
            over: Some(Edition(0)),
        };
        let node = Arc::clone(&self.node);
        match node.table.change(&change, |table| node.apply(table)).await {
            Ok(Changed::Created) => {
                tracing::warn!(
                    deployment = name,
                    "the store had lost a deployment whose containers run; it goes on as it runs"
                );
                node.parts.fleet.tell(News::DeploymentsChanged {}).await;
                self.again = Instant::now();
                true
            }
            Ok(Changed::Moved) => {
                if let Err(error) = node.look().await {
                    tracing::debug!(%error, "deployments cannot be looked up now");
                }
                self.again = Instant::now();
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(deployment = name, %error, "what runs is not in the table yet");
                false
            }
        }
    }

    /// Takes over what was published of deployments not looked at yet.
    pub(super) async fn remember(
        &mut self,
        wanted: &BTreeMap<String, Wanted>,
        found: &BTreeMap<String, Vec<Found>>,
    ) -> Result<(), StoreError> {
        let names = wanted.keys().chain(found.keys());
        let new: Vec<_> = names
            .filter(|name| {
                !self
                    .memories
                    .get(*name)
                    .is_some_and(|memory| memory.is_remembered)
            })
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let known: Vec<_> = {
            let known = self.node.known();
            new.iter()
                .filter_map(|name| known.records.get(name))
                .cloned()
                .collect()
        };
        let stored = match self.grant.fence() {
            Some(_) => self.node.stored(&new).await?,
            None => known,
        };
        for record in stored {
            if record.phase == Phase::Removed {
                self.node.known().removed.insert(record.name.clone());
                continue;
            }
            let memory = self.memories.entry(record.name.clone()).or_default();
            record.remember(&mut memory.history, now);
            memory.image.clone_from(&record.image);
            memory.attempt = record.attempt;
            // Written again in any case: it is another node's.
            memory.told = Some((record, now));
        }
        for name in new {
            self.memories.entry(name).or_default().is_remembered = true;
        }
        Ok(())
    }
}

/// Serves what the engine's labels tell, when nobody else tells anything.
pub(in crate::deployments) async fn routes_from_labels(node: &Arc<Deployments>) {
    let Some(engine) = node.parts.engine.identify().await else {
        return;
    };
    let grantless = Instant::now();
    let fleet = node.parts.signer.fleet_id();
    let Ok(containers) = node.parts.engine.docker.list(&fleet).await else {
        return;
    };
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for one in containers
        .into_iter()
        .filter_map(|one| Found::of(&fleet, one))
    {
        found.entry(one.server.clone()).or_default().push(one);
    }
    for (name, found) in found {
        let mut history = History::default();
        let mut plan = Plan::default();
        for one in &found {
            if let Life::Running(since) = one.seen.life {
                // Believed until a probe says otherwise.
                history.entry(&one.seen.name).answered(since, grantless);
                plan.routed.insert(one.seen.name.clone());
            }
        }
        let goal = as_it_is(&found);
        let situation = Situation {
            name: &name,
            definition: None,
            goal: &goal,
            plan: &plan,
            found: &found,
            history: &history,
            troubles: &BTreeMap::new(),
            pressed: &BTreeMap::new(),
            pull: None,
            image: None,
            before: None,
            fleet: &fleet,
        };
        let mut record = situation.record();
        record.engine = engine.to_string();
        node.learn(record);
    }
}
