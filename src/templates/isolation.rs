//! What a template's containers may do. A limit can be made tighter by its
//! value; doing without it takes `{"value": .., "reason": ".."}`.

use std::time::Duration;

use super::spec::{Isolation, Loosened, Network};
use crate::config::{
    section::Section,
    tree::{Located, Value as Node},
    values::{self, Problem},
};

/// Longest wait for the answer to a call.
pub(super) fn timeout(located: &Located) -> Result<Duration, Problem> {
    values::duration(Duration::from_millis(10)..=Duration::from_secs(86_400))(located)
}

const NETWORKS: [(&str, Network); 2] =
    [("internal", Network::Internal), ("egress", Network::Egress)];

/// Reads `isolation`.
pub(super) fn read(mut section: Section<'_>) -> Isolation {
    let usual = Isolation::default();
    let mut loosened = Vec::new();
    let mut reader = Reader {
        section: &mut section,
        loosened: &mut loosened,
    };
    let isolation = Isolation {
        memory: reader.limit(
            "memory",
            usual.memory,
            values::size(6 << 20..=1 << 40),
            |memory| *memory > usual.memory,
        ),
        cpus: reader.limit("cpus", usual.cpus, values::number(0.01..=256.0), |cpus| {
            *cpus > usual.cpus
        }),
        pids: reader.limit("pids", usual.pids, values::count(1..=100_000), |pids| {
            *pids > usual.pids
        }),
        read_only: reader.limit("read_only", usual.read_only, values::boolean, |is| !is),
        tmpfs: reader.limit("tmpfs", usual.tmpfs, values::size(0..=1 << 36), |tmpfs| {
            *tmpfs > usual.tmpfs
        }),
        user: reader.limit("user", usual.user.clone(), user, |user| is_root(user)),
        network: reader.limit(
            "network",
            usual.network,
            values::choice(&NETWORKS),
            |network| *network == Network::Egress,
        ),
        capabilities: reader.limit("capabilities", Vec::new(), capabilities, |kept| {
            !kept.is_empty()
        }),
        loosened: Vec::new(),
    };
    section.finish();
    Isolation {
        loosened,
        ..isolation
    }
}

struct Reader<'a, 'f> {
    section: &'a mut Section<'f>,
    loosened: &'a mut Vec<Loosened>,
}

impl Reader<'_, '_> {
    fn limit<T: PartialEq>(
        &mut self,
        key: &str,
        usual: T,
        parse: impl Fn(&Located) -> Result<T, Problem>,
        is_loose: impl Fn(&T) -> bool,
    ) -> T {
        let Some(located) = self.section.take(key) else {
            return usual;
        };
        let (value, reason) = match &located.value {
            Node::Table(table) => (table.get("value"), table.get("reason")),
            _ => (Some(&located), None),
        };
        let Some(value) = value else {
            let message = "expected a value, or {\"value\": .., \"reason\": \"..\"}";
            self.section.report(key, &located, Problem::new(message));
            return usual;
        };
        let parsed = match parse(value) {
            Ok(parsed) => parsed,
            Err(problem) => {
                self.section.report(key, value, problem);
                return usual;
            }
        };
        if !is_loose(&parsed) {
            return parsed;
        }
        match reason.map(values::some_text) {
            Some(Ok(reason)) => self.loosened.push(Loosened {
                what: key.to_owned(),
                reason,
            }),
            Some(Err(problem)) => self.section.report(key, &located, problem),
            None => {
                let shown = value.shown();
                let message = format!(
                    "is looser than usual: say why with {{\"value\": {shown}, \"reason\": \"..\"}}"
                );
                self.section.report(key, &located, Problem::new(message));
            }
        }
        parsed
    }
}

fn user(located: &Located) -> Result<String, Problem> {
    let user = values::text(located)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-' | '.');
    match user.chars().all(good) {
        true => Ok(user),
        false => Err(Problem::new(format!(
            "expected \"uid:gid\", or \"\" for the image's own user, found {user:?}"
        ))),
    }
}

/// Also the image's own user, which may be root.
fn is_root(user: &str) -> bool {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    matches!(user, "" | "0" | "root") || matches!(group, "0" | "root")
}

fn capabilities(located: &Located) -> Result<Vec<String>, Problem> {
    let names = values::texts(located)?;
    let known = |name: &String| {
        let name = name.trim_start_matches("CAP_").to_owned();
        name.chars()
            .all(|c| c.is_ascii_uppercase() || c == '_')
            .then_some(name)
            .filter(|name| name != "ALL")
    };
    let checked: Option<Vec<_>> = names.iter().map(known).collect();
    checked.ok_or_else(|| {
        Problem::new(format!(
            "expected names of capabilities such as [\"CHOWN\"], each by itself, found {}",
            located.shown()
        ))
    })
}
