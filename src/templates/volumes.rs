//! Mounts as people write them: `SOURCE[:TARGET][:ro]`. Pure.

use std::path::Path;

/// Directories by which a machine or its engine is ruled. Neither these nor
/// what is below or above them is given to a server.
const RULING: [&str; 8] = [
    "/boot",
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/run",
];
/// Directories that are not given as a whole.
const NOT_WHOLE: [&str; 1] = ["/etc"];
/// Where nothing can appear in a container: the bridge is there, or the kernel.
const OCCUPIED: [&str; 4] = ["/.mcp-fleet", "/dev", "/proc", "/sys"];
/// What the names of the fleet's own volumes begin with.
const OWN: &str = "mcp-fleet-";

/// Source, target and whether it may only be read. What is not written is not decided.
pub(super) type Parsed = (String, Option<String>, bool);

/// Reads one mount.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    let mut parts: Vec<&str> = text.trim().split(':').collect();
    let read_only = match parts.last() {
        Some(&"ro") if parts.len() > 1 => parts.pop().is_some(),
        Some(&"rw") if parts.len() > 1 => {
            parts.pop();
            false
        }
        _ => false,
    };
    let (source, target) = match *parts {
        [source] => (source, None),
        [source, target] => (source, Some(target)),
        _ => {
            return Err(format!(
                "expected SOURCE:TARGET or SOURCE:TARGET:ro, found {text:?}"
            ));
        }
    };
    let source = checked_source(source)?;
    let target = target.map(checked_target).transpose()?;
    Ok((source, target, read_only))
}

/// Where a source appears when nobody says.
pub(super) fn default_target(source: &str) -> String {
    match source.strip_prefix('/') {
        Some(path) => format!("/mnt/{path}"),
        None => format!("/mnt/{source}"),
    }
}

fn checked_source(source: &str) -> Result<String, String> {
    if source.starts_with('/') {
        let path = normal(source)?;
        return match refusal(&path) {
            Some(why) => Err(format!("{path:?} is not given to a server: {why}")),
            None => Ok(path),
        };
    }
    if source.starts_with(OWN) {
        return Err(format!(
            "{source:?} is not given to a server: names that begin with {OWN:?} are those of the \
             fleet's own volumes"
        ));
    }
    let is_name = source.len() > 1
        && source.starts_with(|c: char| c.is_ascii_alphanumeric())
        && source
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if is_name {
        Ok(source.to_owned())
    } else {
        Err(format!(
            "expected an absolute path on the engine's machine or the name of a volume, found \
             {source:?}"
        ))
    }
}

/// Why a path of the engine's machine is not given.
fn refusal(path: &str) -> Option<String> {
    let at = Path::new(path);
    if let Some(ruling) = RULING.iter().find(|ruling| at.starts_with(ruling)) {
        return Some(format!("whoever has {ruling} has the machine"));
    }
    if let Some(ruling) = RULING.iter().find(|it| Path::new(it).starts_with(at)) {
        let why = format!("{ruling} is below it, and whoever has that has the machine");
        return Some(why);
    }
    if path.ends_with(".sock") {
        return Some("by a socket it would rule a service of the machine".to_owned());
    }
    NOT_WHOLE
        .contains(&path)
        .then(|| "whoever has it has the machine; name a directory below it".to_owned())
}

/// Where something is to appear in a container.
pub(super) fn checked_target(target: &str) -> Result<String, String> {
    let path = match target.starts_with('/') {
        true => normal(target)?,
        false => String::new(),
    };
    if path.len() < 2 {
        return Err(format!(
            "expected an absolute path in the container, found {target:?}"
        ));
    }
    match OCCUPIED.iter().find(|it| Path::new(&path).starts_with(it)) {
        Some(it) => Err(format!(
            "nothing can appear as {path:?} in a container: {it} is taken"
        )),
        None => Ok(path),
    }
}

/// A path without what leads elsewhere than it looks.
fn normal(path: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(format!("{path:?} has `..` in it: write where it leads")),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let parsed = |source: &str, target: Option<&str>, read_only| {
            Ok((source.to_owned(), target.map(str::to_owned), read_only))
        };
        for (text, expected) in [
            ("/srv/files/", parsed("/srv/files", None, false)),
            ("/a:/b", parsed("/a", Some("/b"), false)),
            ("/a:/b:ro", parsed("/a", Some("/b"), true)),
            ("/a:ro", parsed("/a", None, true)),
            ("notes:/data:rw", parsed("notes", Some("/data"), false)),
            ("/a//b/./c", parsed("/a/b/c", None, false)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(default_target("/srv/x"), "/mnt/srv/x");
        assert_eq!(default_target("notes"), "/mnt/notes");
    }

    #[test]
    fn what_gives_the_machine_away_or_means_nothing_is_refused() {
        for bad in [
            "/",
            "//",
            "/etc",
            "/var",
            "/var/lib/",
            "/var/run/docker.sock",
            "/run/user/1/docker.sock:/x",
            "/run/containerd",
            "/run/podman/podman.sock:/x",
            "/home/me/.podman/api.sock",
            "//var//lib/docker/./volumes",
            "/proc/:/p",
            "/proc/1/root",
            "/dev/mem",
            "/sys/kernel",
            "mcp-fleet-01234567-bridge-89abcdef:/x",
            "/a/../etc",
            "~/files",
            "./files",
            "",
            "x",
            "/a:b",
            "/a:/",
            "/a:/b:/c",
            "/a:/b/../c",
            "/a:/.mcp-fleet",
            "/a://.mcp-fleet/mcp-fleet-bridge",
            "/a:/proc/self",
            "/a:/dev/shm",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for good in ["/variable", "/var/lib/notes:/run/x", "/etc/ssl", "/devices"] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_invites_only_to_what_is_given() {
        let told = |text| parse(text).expect_err("refused");
        assert!(told("/proc/1/root").ends_with("whoever has /proc has the machine"));
        assert!(told("/var").contains("/var/lib/containerd is below it"));
        assert!(told("/x/y.sock").contains("a socket"));
        assert!(told("/etc").ends_with("name a directory below it"));
    }
}
