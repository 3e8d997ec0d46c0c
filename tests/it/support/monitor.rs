//! Every command that a Redis executes, those of scripts included, in order
//! and with its time: what `MONITOR` tells. And what has to be true of it.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcp_fleet::health::Record;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{redis::RedisServer, wire::Owned};

/// Records until dropped. Follows the Redis over restarts.
pub(crate) struct Monitor {
    commands: Arc<Mutex<Vec<Command>>>,
    _reading: Owned<()>,
}

/// A command that was executed.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Since 1970, on the clock of Redis.
    pub(crate) at: Duration,
    /// Whether a script ran it.
    pub(crate) by_script: bool,
    pub(crate) words: Vec<Vec<u8>>,
}

/// The same clock: Redis runs on this machine.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
}

impl Monitor {
    /// Begins; what is executed from now on is recorded.
    pub(crate) async fn on(redis: &RedisServer) -> Self {
        let port = redis.port();
        let commands = Arc::new(Mutex::new(Vec::new()));
        let first = listen(port).await.expect("redis runs");
        let into = Arc::clone(&commands);
        let reading = tokio::spawn(async move {
            let mut connected = Some(first);
            loop {
                if let Some(lines) = connected {
                    record(lines, &into).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                connected = listen(port).await.ok();
            }
        });
        Self {
            commands,
            _reading: Owned(reading),
        }
    }

    /// What was executed so far.
    pub(crate) fn history(&self) -> History {
        History(self.commands.lock().expect("not poisoned").clone())
    }
}

async fn listen(port: u16) -> std::io::Result<BufReader<TcpStream>> {
    let mut lines = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    lines.write_all(b"MONITOR\r\n").await?;
    let mut first = Vec::new();
    lines.read_until(b'\n', &mut first).await?;
    Ok(lines)
}

async fn record(mut lines: BufReader<TcpStream>, into: &Mutex<Vec<Command>>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        if let Some(command) = parse(&line) {
            into.lock().expect("not poisoned").push(command);
        }
    }
}

/// `+1700000000.123456 [0 lua] "SET" "key" "\x00"`
fn parse(line: &[u8]) -> Option<Command> {
    let text = line.strip_prefix(b"+")?;
    let begin = text.iter().position(|&byte| byte == b'"')?;
    let head = std::str::from_utf8(&text[..begin]).ok()?;
    let (at, from) = head.split_once(' ')?;
    Some(Command {
        at: Duration::from_secs_f64(at.parse().ok()?),
        by_script: from.contains("lua"),
        words: words(&text[begin..]),
    })
}

fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = text.iter().copied();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut word = Vec::new();
        while let Some(byte) = bytes.next().filter(|&byte| byte != b'"') {
            word.push(match byte {
                b'\\' => match bytes.next().expect("an escape") {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let mut digit = || char::from(bytes.next()?).to_digit(16);
                        let (high, low) = (digit().expect("hex"), digit().expect("hex"));
                        u8::try_from(high * 16 + low).expect("two digits")
                    }
                    other => other,
                },
                other => other,
            });
        }
        words.push(word);
    }
    words
}

/// What was executed.
#[derive(Debug, Clone)]
pub(crate) struct History(pub(crate) Vec<Command>);

/// A lease that was given.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) at: Duration,
    /// `probe:up/0a1b`
    pub(crate) duty: String,
    pub(crate) holder: String,
    pub(crate) fence: u64,
}

impl Given {
    /// The name of the node.
    pub(crate) fn node(&self) -> &str {
        node(&self.holder)
    }
}

/// A health record that was sent, with its fate.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) replica: String,
    pub(crate) fence: u64,
    pub(crate) record: Record,
    pub(crate) accepted: bool,
}

/// The node of a holder's name.
pub(crate) fn node(holder: &str) -> &str {
    holder.rsplit_once('/').map_or(holder, |(node, _)| node)
}

impl Command {
    fn word(&self, index: usize) -> &str {
        let word = self.words.get(index);
        word.and_then(|word| std::str::from_utf8(word).ok())
            .unwrap_or_default()
    }

    /// What stands in the braces of a key.
    fn tag<'a>(&'a self, index: usize, before: &str, after: &str) -> Option<&'a str> {
        let (_, rest) = self.word(index).split_once(before)?;
        rest.strip_suffix(after)
    }
}

impl History {
    /// Leases in the order they were given.
    pub(crate) fn given(&self) -> Vec<Given> {
        let scripts = self.0.iter().filter(|command| command.by_script);
        let sets: Vec<_> = scripts.filter(|command| command.word(0) == "SET").collect();
        let lease = |command: &Command| command.tag(1, ":lease:{", "}").map(str::to_owned);
        // The script sets the lease, then its fence.
        sets.windows(2)
            .filter_map(|pair| {
                let duty = lease(pair[0])?;
                assert_eq!(
                    pair[1].tag(1, ":lease:{", "}:fence"),
                    Some(&*duty),
                    "{pair:?}"
                );
                Some(Given {
                    at: pair[0].at,
                    duty,
                    holder: pair[0].word(2).to_owned(),
                    fence: pair[1].word(2).parse().expect("a number"),
                })
            })
            .collect()
    }

    /// Leases given back, in order: when, and which.
    pub(crate) fn given_back(&self) -> Vec<(Duration, String)> {
        let deleted = |command: &&Command| command.by_script && command.word(0) == "DEL";
        self.0
            .iter()
            .filter(deleted)
            .filter_map(|command| Some((command.at, command.tag(1, ":lease:{", "}")?.to_owned())))
            .collect()
    }

    /// Duties that a node held at some time, as far as it had not given them back.
    pub(crate) fn held(&self, node: &str, at: Duration) -> Vec<String> {
        let mut held = BTreeMap::new();
        let given = self.given().into_iter().map(|given| {
            let node = given.node().to_owned();
            (given.at, given.duty, Some(node))
        });
        let back = self.given_back().into_iter();
        let mut all: Vec<_> = given
            .chain(back.map(|(at, duty)| (at, duty, None)))
            .collect();
        all.sort_by_key(|(at, ..)| *at);
        for (_, duty, holder) in all.into_iter().take_while(|(when, ..)| *when <= at) {
            held.insert(duty, holder);
        }
        held.retain(|_, holder| holder.as_deref() == Some(node));
        held.into_keys().collect()
    }

    /// Health records as they arrived: what the scripts were called with, and
    /// whether they wrote.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        let mut sent: Vec<Sent> = Vec::new();
        for (index, command) in self.0.iter().enumerate() {
            let is_call = !command.by_script && command.word(0).starts_with("EVAL");
            let Some(replica) = command.tag(3, ":health:{", "}").filter(|_| is_call) else {
                continue;
            };
            // What the script does follows at once: nothing runs beside it.
            let its = self.0[index + 1..].iter().take_while(|one| one.by_script);
            let accepted = its.clone().any(|one| one.word(0) == "HSET");
            let steps = its.count();
            // A script that Redis does not know is sent again with its text; and
            // the last may not have been recorded to its end.
            if steps == 0 || index + 1 + steps == self.0.len() {
                continue;
            }
            sent.push(Sent {
                at: command.at,
                replica: replica.to_owned(),
                fence: command.word(4).parse().expect("a fence"),
                record: Record::decode(&command.words[5]).expect("a record"),
                accepted,
            });
        }
        sent
    }

    /// What must hold whatever happened: fences of a duty grow; what is
    /// written under them never goes back; and who wrote held the lease that
    /// the fence belongs to. The history has to begin before the first lease,
    /// and the keys of fences must not have been lost in it.
    pub(crate) fn is_in_order(&self) {
        let mut owners: HashMap<(String, u64), String> = HashMap::new();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for given in self.given() {
            let before = last.insert(given.duty.clone(), given.fence).unwrap_or(0);
            assert!(
                before < given.fence,
                "a fence did not grow: {given:?} after {before}"
            );
            owners.insert((given.duty, given.fence), given.holder);
        }
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for sent in self.sent().into_iter().filter(|sent| sent.accepted) {
            let before = last.insert(sent.replica.clone(), sent.fence).unwrap_or(0);
            assert!(
                before <= sent.fence,
                "older after newer ({before}): {sent:?}"
            );
            let duty = format!("probe:{}", sent.replica);
            let owner = owners.get(&(duty, sent.fence)).map(|holder| node(holder));
            assert_eq!(owner, Some(&*sent.record.node), "not its lease: {sent:?}");
        }
    }
}

#[test]
fn what_monitor_prints_is_read() {
    let line = br#"+1700000000.250000 [0 lua] "HSET" "f:health:{up/1}" "a\"\\b" "\x00\xff\n""#;
    let command = parse(line).expect("a command");
    assert_eq!(command.at, Duration::from_millis(1_700_000_000_250));
    assert!(command.by_script);
    let words: [&[u8]; 4] = [b"HSET", b"f:health:{up/1}", b"a\"\\b", b"\x00\xff\n"];
    assert_eq!(command.words, words);
    assert_eq!(command.tag(1, ":health:{", "}"), Some("up/1"));
}
