//! Mounts as people write them: `SOURCE[:TARGET][:ro]`. Pure.

/// Directories and sockets whose owner owns the machine.
const NEVER: [&str; 9] = [
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/run",
    "/sys",
    "/var/lib/docker",
    "/var/run",
];

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
        if NEVER.contains(&path.as_str()) || path.ends_with("/docker.sock") {
            return Err(format!(
                "{path:?} is not given to a server: whoever has it has the machine; name a \
                 directory below it"
            ));
        }
        return Ok(path);
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

fn checked_target(target: &str) -> Result<String, String> {
    let is_path = target.starts_with('/') && !target.trim_end_matches('/').is_empty();
    match is_path {
        true => normal(target),
        false => Err(format!(
            "expected an absolute path in the container, found {target:?}"
        )),
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
            "/var/run/docker.sock",
            "/run/user/1/docker.sock:/x",
            "/proc/:/p",
            "/a/../etc",
            "~/files",
            "./files",
            "",
            "x",
            "/a:b",
            "/a:/",
            "/a:/b:/c",
            "/a:/b/../c",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
