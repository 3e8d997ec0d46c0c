//! `[servers.NAME]`: the MCP servers this node is told about.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use url::Url;

mod pairs;
mod request;

use super::{
    rates,
    section::{Findings, Section},
    tree::{Located, Place, Value},
    values::{self, Problem},
};
use crate::{
    balance::Policy,
    bridge::backend::Mode,
    ids::ServerId,
    servers::{Endpoint, InFlightLimit, StdioCommand},
    store::rates::Rate,
};

/// One MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The name clients use.
    pub id: ServerId,
    /// Where it can be dialled; never empty.
    pub replicas: Vec<ReplicaConfig>,
    /// How a replica is chosen. Default `p2c`.
    pub balance: Policy,
    /// Longest wait for an answer; progress starts it anew, `limits.call` is the cap. Default 30 s.
    pub timeout: Duration,
    /// Header lines sent with every request to it, such as `Authorization`;
    /// marked sensitive. Default: none.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether its tools' `readOnlyHint` and `idempotentHint` are believed
    /// when a failed call could be repeated. Default true.
    pub trust_annotations: bool,
    /// Whether any replica understands the handles (task ids) of any other. Default false.
    pub stateless: bool,
    /// Calls of one client to it. Default: no limit.
    pub rate_limit: Option<Rate>,
    /// Calls of one client to single tools. Default: no limit.
    pub tool_rate_limits: BTreeMap<String, Rate>,
    /// Calls that each replica takes at once, from the whole fleet. Default: any number.
    pub max_in_flight: Option<u32>,
    /// Calls of a node that may wait for a place, where there is a maximum. Default 100.
    pub queue: usize,
    /// How long each may wait. Default 5 s.
    pub queue_timeout: Duration,
    /// Where the definition came from, for people.
    pub origin: &'static str,
}

/// One place where a server can be dialled.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaConfig {
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Share of the traffic under the `weighted` policy. Default 1.
    pub weight: u32,
}

impl ServerConfig {
    /// The defaults around a name and its endpoints.
    #[must_use]
    pub fn new(id: ServerId, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            id,
            replicas: endpoints.into_iter().map(ReplicaConfig::from).collect(),
            balance: Policy::default(),
            timeout: Duration::from_secs(30),
            headers: Vec::new(),
            trust_annotations: true,
            stateless: false,
            rate_limit: None,
            tool_rate_limits: BTreeMap::new(),
            max_in_flight: None,
            queue: 100,
            queue_timeout: Duration::from_secs(5),
            origin: "config",
        }
    }
}

impl ServerConfig {
    /// What a replica takes at once, if that is limited.
    #[must_use]
    pub fn limit(&self) -> Option<InFlightLimit> {
        self.max_in_flight.map(|max| InFlightLimit {
            max,
            queue: self.queue,
            queue_timeout: self.queue_timeout,
        })
    }
}

impl From<Endpoint> for ReplicaConfig {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: 1,
        }
    }
}

const POLICIES: [(&str, Policy); 5] = [
    ("p2c", Policy::P2c),
    ("round_robin", Policy::RoundRobin),
    ("least_in_flight", Policy::LeastInFlight),
    ("weighted", Policy::Weighted),
    ("random", Policy::Random),
];

const MODES: [(&str, Mode); 3] = [
    ("shared", Mode::Shared),
    ("per-session", Mode::PerSession),
    ("per-call", Mode::PerCall),
];

/// All of `[servers]`, in the order they are written. `imported` came from `--mcp-json`.
pub(super) fn read_all(mut section: Section<'_>, imported: &[String]) -> Vec<ServerConfig> {
    // Learns the keys also when no server is configured.
    let mut lesson = Findings::default();
    read_one(section.any_name(&mut lesson));
    section.findings.known.append(&mut lesson.known);
    let entries = section.take_all();
    let mut servers = Vec::with_capacity(entries.0.len());
    for entry in entries.0 {
        let origin = match &entry.place {
            _ if imported.contains(&entry.key) => "--mcp-json",
            Place::File { .. } => "config",
            Place::Variable(_) => "environment",
            Place::Flag(_) => "--server",
            Place::Request => "api",
        };
        let id = ServerId::try_from(entry.key.as_str());
        if let Err(error) = &id {
            let path = section.path_of(&entry.key);
            section
                .findings
                .error(&entry.place, path, error.to_string());
        }
        let read = read_one(section.named(&entry.key, entry.value));
        if let (Ok(id), Some(server)) = (id, read) {
            servers.push(ServerConfig {
                id,
                origin,
                ..server
            });
        }
    }
    section.finish();
    servers
}

/// One server, still without its name; `None` when it cannot be reached.
fn read_one(mut section: Section<'_>) -> Option<ServerConfig> {
    let nameless = ServerId::try_from("nameless").ok()?;
    let defaults = ServerConfig::new(nameless, []);
    let replicas = replicas(&mut section);
    let millis = Duration::from_millis;
    let server = ServerConfig {
        replicas: replicas.unwrap_or_default(),
        balance: section.read("balance", defaults.balance, values::choice(&POLICIES)),
        timeout: section.read(
            "timeout",
            defaults.timeout,
            values::duration(millis(10)..=millis(86_400_000)),
        ),
        headers: pairs::headers(&mut section),
        trust_annotations: section.read(
            "trust_annotations",
            defaults.trust_annotations,
            values::boolean,
        ),
        stateless: section.read("stateless", defaults.stateless, values::boolean),
        rate_limit: section.optional("rate_limit", rates::rate),
        tool_rate_limits: rates::by_tool(&mut section, "tool_rate_limits"),
        max_in_flight: section.optional("max_in_flight", values::count(1..=100_000)),
        queue: section.read("queue", defaults.queue, values::count(0..=100_000)),
        queue_timeout: section.read(
            "queue_timeout",
            defaults.queue_timeout,
            values::duration(millis(10)..=millis(86_400_000)),
        ),
        ..defaults
    };
    section.finish();
    (!server.replicas.is_empty()).then_some(server)
}

/// Where the server can be dialled: exactly one of `url`, `replicas`, `command`.
fn replicas(section: &mut Section<'_>) -> Option<Vec<ReplicaConfig>> {
    let url = section.take("url");
    let several = section.take("replicas");
    let command = section.take("command");
    let ways = [("url", &url), ("replicas", &several), ("command", &command)];
    let given: Vec<_> = ways.iter().filter(|(_, way)| way.is_some()).collect();
    if given.len() != 1 {
        if let Some((key, _)) = given.last() {
            let keys: Vec<_> = given.iter().map(|(key, _)| format!("`{key}`")).collect();
            section.fail(key, format!("give only one of {}", keys.join(" and ")));
        } else if let Some(place) = section.place.clone() {
            let path = section.path_of("");
            let message = "does not say how it is reached: give `url`, `replicas` or `command`";
            section
                .findings
                .error(&place, path.trim_end_matches('.'), message);
        }
    }
    forbid(
        section,
        command.is_some(),
        &["headers"],
        "`url` or `replicas`",
    );
    forbid(
        section,
        command.is_none() && !given.is_empty(),
        &["env", "directory", "mode", "max_processes"],
        "`command`",
    );
    let env = pairs::environment(section);
    let directory = section.optional("directory", |located| {
        let path = located.place.resolve(&values::some_text(located)?);
        Ok(path.display().to_string())
    });
    let defaults = StdioCommand::default();
    let mode = section.read("mode", defaults.mode, values::choice(&MODES));
    let max_processes = section.read(
        "max_processes",
        defaults.max_processes.get(),
        values::count(1..=10_000),
    );
    if let Some(url) = url {
        let uri = checked(section, "url", &url, endpoint)?;
        return Some(vec![Endpoint::Http(uri).into()]);
    }
    if let Some(several) = several {
        return replica_list(section, &several);
    }
    let argv = checked(section, "command", &command?, command_line)?;
    let command = StdioCommand {
        argv,
        env,
        directory,
        mode,
        max_processes: NonZeroUsize::new(max_processes).unwrap_or(defaults.max_processes),
    };
    Some(vec![Endpoint::Stdio(command).into()])
}

fn forbid(section: &mut Section<'_>, when: bool, keys: &[&str], only_with: &str) {
    for key in keys
        .iter()
        .filter(|key| when && section.has(key))
        .collect::<Vec<_>>()
    {
        section.fail(key, format!("makes sense with {only_with} only"));
    }
}

fn checked<T>(
    section: &mut Section<'_>,
    key: &str,
    located: &Located,
    parse: impl Fn(&Located) -> Result<T, Problem>,
) -> Option<T> {
    match parse(located) {
        Ok(value) => Some(value),
        Err(problem) => {
            let place = problem.place.as_ref().unwrap_or(&located.place);
            let path = section.path_of(key);
            section.findings.error(place, path, problem.message);
            None
        }
    }
}

fn replica_list(section: &mut Section<'_>, located: &Located) -> Option<Vec<ReplicaConfig>> {
    let items = match &located.value {
        Value::List(items) => items.clone(),
        Value::Text(_) => checked(section, "replicas", located, values::texts)?
            .into_iter()
            .map(|text| Located::text(text, located.place.clone()))
            .collect(),
        other => {
            let found = Located {
                value: other.clone(),
                place: located.place.clone(),
            }
            .shown();
            let message = format!("expected a list of URLs, found {found}");
            let path = section.path_of("replicas");
            section.findings.error(&located.place, path, message);
            return None;
        }
    };
    if items.is_empty() {
        section.fail("replicas", "is empty: a server has at least one replica");
    }
    let mut replicas: Vec<ReplicaConfig> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let key = format!("replicas[{index}]");
        let Some(replica) = replica(section, &key, item) else {
            continue;
        };
        if replicas
            .iter()
            .any(|other| other.endpoint == replica.endpoint)
        {
            let path = section.path_of(&key);
            section
                .findings
                .error(&item.place, path, "is the same as an earlier replica");
        }
        replicas.push(replica);
    }
    Some(replicas)
}

/// `"http://..."` or `{ url = "http://...", weight = 2 }`.
fn replica(section: &mut Section<'_>, key: &str, item: &Located) -> Option<ReplicaConfig> {
    let Value::Table(table) = &item.value else {
        let uri = checked(section, key, item, endpoint)?;
        return Some(Endpoint::Http(uri).into());
    };
    for entry in &table.0 {
        if !["url", "weight"].contains(&entry.key.as_str()) {
            let path = section.path_of(&format!("{key}.{}", entry.key));
            let message = "unknown key; known here are url, weight";
            section.findings.error(&entry.place, path, message);
        }
    }
    let weight = match table.get("weight") {
        None => 1,
        Some(weight) => checked(
            section,
            &format!("{key}.weight"),
            weight,
            values::count(1..=1000),
        )?,
    };
    let Some(url) = table.get("url") else {
        let path = section.path_of(key);
        section
            .findings
            .error(&item.place, path, "`url` is missing");
        return None;
    };
    let uri = checked(section, &format!("{key}.url"), url, endpoint)?;
    let endpoint = Endpoint::Http(uri);
    Some(ReplicaConfig { endpoint, weight })
}

/// An address to dial.
fn endpoint(located: &Located) -> Result<Uri, Problem> {
    let text = values::some_text(located)?;
    let bad = || {
        Problem::new(format!(
            "expected an address such as \"http://127.0.0.1:7071/mcp\", beginning with http:// or \
             https://, found {text:?}"
        ))
    };
    let url = Url::parse(&text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad());
    }
    // Not shown: there is a password in it.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::new(
            "has a user name or password in it: put it into `headers`, as \
             `Authorization = \"Basic ...\"`",
        ));
    }
    if url.fragment().is_some() {
        return Err(Problem::new("has a `#` part, which no server ever sees"));
    }
    url.as_str().parse().map_err(|_| bad())
}

/// `["program", "argument"]`.
fn command_line(located: &Located) -> Result<Vec<String>, Problem> {
    let argv = match &located.value {
        Value::Text(line) if located.place.is_untyped() => {
            line.split_whitespace().map(str::to_owned).collect()
        }
        Value::Text(line) if line.trim().contains(char::is_whitespace) => {
            let words: Vec<_> = line
                .split_whitespace()
                .map(|word| format!("{word:?}"))
                .collect();
            return Err(Problem::new(format!(
                "expected the program and its arguments one by one: [{}]",
                words.join(", ")
            )));
        }
        Value::Text(program) => vec![program.clone()],
        Value::List(items) => items.iter().map(word).collect::<Result<_, _>>()?,
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Table(_) => {
            return Err(Problem::new(format!(
                "expected a list such as [\"program\", \"argument\"], found {}",
                located.shown()
            )));
        }
    };
    match argv.first() {
        Some(program) if !program.trim().is_empty() => Ok(argv),
        Some(_) | None => Err(Problem::new("names no program")),
    }
}

/// Arguments may be empty, the list may not hold anything but texts.
fn word(item: &Located) -> Result<String, Problem> {
    values::text(item).map_err(|problem| Problem {
        place: Some(item.place.clone()),
        ..problem
    })
}
