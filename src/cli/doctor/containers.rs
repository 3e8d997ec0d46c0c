//! Containers that run for this fleet although nobody wants them, where a node
//! answers and can tell.

use std::collections::BTreeSet;

use tokio::time::timeout;

use super::{
    Finding, Node,
    engine::{PATIENCE, connect},
};
use crate::config::Config;

pub(super) async fn look(config: &Config, node: &Node) -> Vec<Finding> {
    let Some(docker) = connect(config) else {
        return Vec::new();
    };
    let asked = timeout(PATIENCE, node.get("/api/deployments"));
    let (found, wanted) = tokio::join!(docker.of_all_fleets(), asked);
    match (found, wanted) {
        (Ok(found), Ok(Ok(wanted))) => vec![judge(&found, wanted.get())],
        // Without the engine there is nothing to list, without a node nothing
        // to compare it with. Both are told elsewhere.
        _ => Vec::new(),
    }
}

/// Any deployment names its containers; what no name stands for is not wanted.
fn judge(found: &[(String, String)], wanted: &str) -> Finding {
    let is_wanted = |name: &str| wanted.contains(&format!("\"{name}\""));
    let own: BTreeSet<_> = found
        .iter()
        .filter(|(_, name)| is_wanted(name))
        .map(|(fleet, _)| fleet)
        .collect();
    let unwanted: Vec<_> = found
        .iter()
        .filter(|(fleet, name)| own.contains(fleet) && !is_wanted(name))
        .map(|(_, name)| name.as_str())
        .collect();
    if unwanted.is_empty() {
        return Finding::good("containers", "none of this fleet that nobody wants");
    }
    let found = format!("no deployment wants {}", unwanted.join(", "));
    let cure = format!(
        "the fleet removes them by itself while Redis and the engine answer; if they stay: `docker rm -f {}`",
        unwanted.join(" ")
    );
    Finding::warning("containers", found, cure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn strangers_are_no_trouble_and_leftovers_are() {
        let name = |fleet: &str, of: &str| (fleet.to_owned(), format!("mcp-fleet-{fleet}-{of}-0"));
        let found = [name("f1", "a"), name("f1", "b"), name("f2", "c")];
        let wanted = r#"[{"replicas":[{"container":"mcp-fleet-f1-a-0"}]}]"#;
        let finding = judge(&found, wanted);
        assert_eq!(finding.result, Verdict::Warning);
        assert_eq!(finding.found, "no deployment wants mcp-fleet-f1-b-0");
        assert_eq!(judge(&found[..1], wanted).result, Verdict::Good);
        assert_eq!(judge(&found, "[]").result, Verdict::Good);
    }
}
