//! `doctor`: is everything in place that a node with this configuration needs?
//!
//! Each file looks at one thing and says what it found, and what to do about
//! it. Nothing is changed. Whatever does not answer is waited for briefly.

use serde::Serialize;

use super::{
    DoctorArgs, Failure, Output,
    client::Node,
    output::{document, table},
    say,
};
use crate::config::{self, Config, ConfigErrors, Loaded, Sources};

mod containers;
mod engine;
mod machine;
mod redis;

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    result: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

/// How good that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// It works, but not in every case.
    Warning,
    /// Something that is configured does not work.
    Wrong,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            result: Verdict::Good,
            found: found.into(),
            cure: None,
        }
    }

    fn warning(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            result: Verdict::Warning,
            cure: Some(cure.into()),
            ..Self::good(check, found)
        }
    }

    fn wrong(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            result: Verdict::Wrong,
            ..Self::warning(check, found, cure)
        }
    }
}

pub(super) async fn doctor(
    args: DoctorArgs,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let node = Node::at(&args.node.node)?;
    let sources = Sources {
        file: args.config.clone(),
        environment,
        ..Sources::default()
    };
    let mut findings = Vec::new();
    match config::load(&sources) {
        Ok(loaded) => {
            findings.extend(configuration(&args, &loaded));
            findings.extend(look(&loaded, &node).await);
        }
        // Without it nothing else is known to look at.
        Err(ConfigErrors(errors)) => findings.extend(errors.iter().map(|error| {
            let cure = "correct it; `mcp-fleet check` says when all is well";
            Finding::wrong("configuration", error.to_string(), cure)
        })),
    }
    print(args.node.output, &findings)?;
    match findings.iter().any(|it| it.result == Verdict::Wrong) {
        true => Err(Failure::Told),
        false => Ok(()),
    }
}

fn configuration(args: &DoctorArgs, loaded: &Loaded) -> Vec<Finding> {
    let name = match &args.config {
        Some(file) => format!("{} is valid", file.display()),
        None => "valid (no file, environment only)".to_owned(),
    };
    let warnings = loaded.warnings.iter().map(|warning| {
        let cure = "change it, or live with it";
        Finding::warning("configuration", warning.to_string(), cure)
    });
    std::iter::once(Finding::good("configuration", name))
        .chain(warnings)
        .collect()
}

/// All at once: what does not answer costs its time only once.
async fn look(loaded: &Loaded, node: &Node) -> Vec<Finding> {
    let config: &Config = &loaded.config;
    let is_engine_wanted = loaded
        .changed
        .iter()
        .any(|setting| setting.key.starts_with("engine."));
    let (store, engine, port, containers) = tokio::join!(
        redis::look(config, is_engine_wanted),
        engine::look(config, is_engine_wanted),
        machine::port(config),
        containers::look(config, node),
    );
    let limits = machine::open_files(config);
    [store, engine, vec![port, limits], containers].concat()
}

fn print(output: Output, findings: &[Finding]) -> Result<(), Failure> {
    let raw = crate::mcp::json::raw(findings);
    let text = document(output, &raw)?.unwrap_or_else(|| shown(findings));
    say(text.trim_end_matches('\n'));
    Ok(())
}

fn shown(findings: &[Finding]) -> String {
    let word = |verdict| match verdict {
        Verdict::Good => "good",
        Verdict::Warning => "warning",
        Verdict::Wrong => "WRONG",
    };
    let rows: Vec<_> = findings
        .iter()
        .map(|it| {
            vec![
                it.check.to_owned(),
                word(it.result).to_owned(),
                it.found.clone(),
            ]
        })
        .collect();
    let mut text = table(&["CHECK", "RESULT", "FOUND"], &rows);
    let mut cures: Vec<_> = findings
        .iter()
        .filter_map(|it| Some(vec![it.check.to_owned(), it.cure.clone()?]))
        .collect();
    cures.dedup();
    if !cures.is_empty() {
        text.push_str("\nwhat to do\n");
        text.push_str(&table(&[], &cures));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cures_stand_below_what_they_are_for() {
        let text = shown(&[
            Finding::good("configuration", "valid"),
            Finding::wrong("redis", "refused", "start it"),
        ]);
        assert_eq!(
            text,
            "  CHECK          RESULT  FOUND\n  configuration  good    valid\n  redis          WRONG   refused\n\n\
             what to do\n  redis  start it\n"
        );
    }
}
