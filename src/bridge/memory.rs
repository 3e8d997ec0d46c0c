//! What sessions have asked a process to remember: the log level and the
//! subscribed resources. A process that is started again is told again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::mcp::{Raw, envelope::LogLevel, json, method};

/// Subscriptions that are remembered; later ones are not told again.
const MOST: usize = 1000;

/// What a process has to be told again.
#[derive(Debug, Default)]
pub struct Memory {
    /// The most verbose level that was set.
    level: Option<(LogLevel, Box<Raw>)>,
    subscriptions: BTreeMap<String, Subscription>,
}

#[derive(Debug)]
struct Subscription {
    params: Box<Raw>,
    sessions: HashSet<Arc<str>>,
}

impl Memory {
    /// Notes a level; whether the process has to be told.
    pub fn set_level(&mut self, level: LogLevel, params: &Raw, is_alone: bool) -> bool {
        let is_told = is_alone || self.level.as_ref().is_none_or(|(now, _)| level <= *now);
        if is_told {
            self.level = Some((level, params.to_owned()));
        }
        is_told
    }

    /// Notes a subscription of a session.
    pub fn subscribe(&mut self, session: &Arc<str>, params: &Raw) {
        let Some(uri) = json::member_str(params, "uri") else {
            return;
        };
        if self.subscriptions.len() >= MOST && !self.subscriptions.contains_key(&*uri) {
            return;
        }
        let subscription = self
            .subscriptions
            .entry(uri.into_owned())
            .or_insert_with(|| Subscription {
                params: params.to_owned(),
                sessions: HashSet::new(),
            });
        subscription.sessions.insert(Arc::clone(session));
    }

    /// Forgets a subscription of a session; whether the process has to be
    /// told, since nobody else has it.
    pub fn unsubscribe(&mut self, session: &str, params: &Raw) -> bool {
        let Some(uri) = json::member_str(params, "uri") else {
            return true;
        };
        let Some(subscription) = self.subscriptions.get_mut(&*uri) else {
            return true;
        };
        subscription.sessions.remove(session);
        let is_last = subscription.sessions.is_empty();
        if is_last {
            self.subscriptions.remove(&*uri);
        }
        is_last
    }

    /// Forgets a session: the parameters of the subscriptions that end with it.
    pub fn forget(&mut self, session: &str) -> Vec<Box<Raw>> {
        let mut ended = Vec::new();
        self.subscriptions.retain(|_, subscription| {
            let had = subscription.sessions.remove(session);
            let is_over = had && subscription.sessions.is_empty();
            if is_over {
                ended.push(subscription.params.clone());
            }
            !is_over
        });
        ended
    }

    /// Whether a session wants to hear of a change of this resource. It may be
    /// part of one that was subscribed to.
    #[must_use]
    pub fn concerns(&self, session: &str, uri: &str) -> bool {
        match self.subscriptions.get(uri) {
            Some(subscription) => subscription.sessions.contains(session),
            None => {
                let mut all = self.subscriptions.values();
                all.any(|subscription| subscription.sessions.contains(session))
            }
        }
    }

    /// What a new process is told: methods and parameters.
    #[must_use]
    pub fn retold(&self) -> Vec<(&'static str, Box<Raw>)> {
        let level = self.level.iter();
        let level = level.map(|(_, params)| (method::LOGGING_SET_LEVEL, params.clone()));
        let subscriptions = self.subscriptions.values();
        let subscriptions = subscriptions.map(|s| (method::RESOURCES_SUBSCRIBE, s.params.clone()));
        level.chain(subscriptions).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::json::raw;

    fn of(uri: &str) -> Box<Raw> {
        raw(&json!({ "uri": uri }))
    }

    #[test]
    fn a_subscription_ends_with_its_last_session() {
        let mut memory = Memory::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        memory.subscribe(&a, &of("x://1"));
        memory.subscribe(&b, &of("x://1"));
        memory.subscribe(&b, &of("x://2"));
        assert!(memory.concerns("a", "x://1") && !memory.concerns("a", "x://2"));
        assert!(memory.concerns("a", "x://1/part") && !memory.concerns("c", "x://1/part"));
        assert!(!memory.unsubscribe("a", &of("x://1")));
        assert!(memory.unsubscribe("a", &of("x://unknown")));
        assert_eq!(memory.retold().len(), 2);
        assert_eq!(memory.forget("b").len(), 2);
        assert!(memory.retold().is_empty());
    }

    #[test]
    fn the_most_verbose_level_is_told() {
        let mut memory = Memory::default();
        let params = |level: LogLevel| raw(&json!({"level": level.as_str()}));
        let mut set = |level, alone| memory.set_level(level, &params(level), alone);
        assert!(set(LogLevel::Warning, false));
        assert!(!set(LogLevel::Error, false));
        assert!(set(LogLevel::Debug, false));
        assert!(set(LogLevel::Error, true));
        let (method, params) = &memory.retold()[0];
        assert_eq!(
            (*method, params.get()),
            ("logging/setLevel", r#"{"level":"error"}"#)
        );
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut memory = Memory::default();
        for n in 0..MOST + 10 {
            memory.subscribe(&"a".into(), &of(&format!("x://{n}")));
        }
        assert_eq!(memory.retold().len(), MOST);
    }
}
