//! `deploy`, `list`, `logs`, `stop`, `restart`, `rm`, `scale`.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _, stdout},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use crate::mcp::Raw;

use super::{
    Failure, NodeArgs, Output,
    client::Node,
    output::document,
    say,
    views::{print, server_in_path},
};

mod progress;
mod tables;

use progress::{Until, wait};
use tables::Deployment;

/// Arguments of `deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The template; `mcp-fleet templates` lists them
    pub template: String,
    /// Name of the server (default: the template's)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How many replicas (default: as many as there are, or 1)
    #[arg(long, value_name = "K")]
    pub replicas: Option<u32>,
    /// A setting; `KEY=-` reads the value from standard input, `KEY=@FILE` from a file; may be repeated
    #[arg(short, long = "config", value_name = "KEY=VALUE")]
    pub config: Vec<String>,
    /// A variable of the server, read in the same ways; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Settings from a JSON or YAML file
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Kind of engine
    #[arg(long, value_name = "KIND", value_parser = ["docker"])]
    pub engine: Option<String>,
    /// Show what would run, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it answers
    #[arg(long)]
    pub no_wait: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of commands about one deployment.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Name of the deployment
    pub name: String,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds its servers have to end by themselves (default: the node's `engine.docker.stop_timeout`)
    #[arg(long, value_name = "S")]
    pub timeout: Option<u32>,
    /// Which deployment.
    #[command(flatten)]
    pub one: OneArgs,
}

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Name of the deployment
    pub name: String,
    /// How many replicas
    #[arg(value_name = "K")]
    pub replicas: u32,
    /// Do not wait until they answer
    #[arg(long)]
    pub no_wait: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name of the deployment
    pub name: String,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Lines of each container
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub tail: u32,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

pub(super) async fn deploy(args: DeployArgs) -> Result<(), Failure> {
    let mut input = Input::default();
    let mut body = json!({
        "template": args.template,
        "config": pairs("-c", &args.config, &mut input)?,
        "env": pairs("-e", &args.env, &mut input)?,
    });
    for (key, value) in [
        ("name", args.name.map(Value::from)),
        ("replicas", args.replicas.map(Value::from)),
        (
            "settings",
            args.file.map(|file| settings(&file)).transpose()?,
        ),
        ("engine", args.engine.map(Value::from)),
        ("dry_run", args.dry_run.then_some(Value::Bool(true))),
    ] {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    let node = Node::at(&args.node.node)?;
    let raw = node
        .post("/api/deployments", body.to_string().into_bytes())
        .await?;
    if args.dry_run {
        return print(&args.node, &raw, tables::dry_run);
    }
    let name = Deployment::parse(&raw)?.name;
    finish(&node, &args.node, &name, raw, args.no_wait, Until::Ready).await
}

pub(super) async fn list(args: NodeArgs) -> Result<(), Failure> {
    let raw = Node::at(&args.node)?.get("/api/deployments").await?;
    print(&args, &raw, tables::list)
}

pub(super) async fn stop(args: StopArgs) -> Result<(), Failure> {
    let body = json!({"timeout": args.timeout});
    change(args.one, "stop", body, Until::Stopped).await
}

pub(super) async fn restart(args: OneArgs) -> Result<(), Failure> {
    change(args, "restart", json!({}), Until::Ready).await
}

pub(super) async fn scale(args: ScaleArgs) -> Result<(), Failure> {
    let body = json!({"replicas": args.replicas});
    let one = OneArgs {
        name: args.name,
        no_wait: args.no_wait,
        node: args.node,
    };
    change(one, "scale", body, Until::Scaled).await
}

async fn change(args: OneArgs, step: &str, body: Value, until: Until) -> Result<(), Failure> {
    let path = path_of(&args.name)?;
    let node = Node::at(&args.node.node)?;
    let raw = node
        .post(&format!("{path}/{step}"), body.to_string().into_bytes())
        .await?;
    finish(&node, &args.node, &args.name, raw, args.no_wait, until).await
}

pub(super) async fn remove(args: OneArgs) -> Result<(), Failure> {
    let path = path_of(&args.name)?;
    let node = Node::at(&args.node.node)?;
    let begun = node.delete(&path).await?.is_some();
    if begun && !args.no_wait {
        wait(&node, &args.name, Until::Gone).await?;
    }
    let (word, is_over) = match begun && args.no_wait {
        true => ("is being removed", false),
        false => ("is removed", true),
    };
    match args.node.output {
        Output::Table => say(&format!("{} {word}", args.name)),
        Output::Json | Output::Yaml => {
            let told = json!({"name": args.name, "removed": is_over}).to_string();
            let told: Box<Raw> =
                serde_json::from_str(&told).map_err(|error| Failure::Failed(error.to_string()))?;
            say(&document(args.node.output, &told)?.unwrap_or_default());
        }
    }
    Ok(())
}

/// Waits, if that is wanted, and shows what came of it.
async fn finish(
    node: &Node,
    args: &NodeArgs,
    name: &str,
    begun: Box<Raw>,
    no_wait: bool,
    until: Until,
) -> Result<(), Failure> {
    let shown = match no_wait {
        true => Some(begun),
        false => wait(node, name, until).await?,
    };
    match shown {
        Some(raw) => print(args, &raw, tables::one),
        None => Ok(()),
    }
}

pub(super) async fn logs(args: LogsArgs) -> Result<(), Failure> {
    let path = path_of(&args.name)?;
    let (tail, follow) = (args.tail, args.follow);
    let path = format!("{path}/logs?tail={tail}&follow={follow}");
    let output = args.node.output;
    let show = |line: &str| {
        let text = match output {
            Output::Table => tables::log_line(line),
            Output::Json | Output::Yaml => line.to_owned(),
        };
        // A reader who went away wants no more.
        writeln!(stdout(), "{text}").is_ok()
    };
    Node::at(&args.node.node)?.lines(&path, show).await
}

fn path_of(name: &str) -> Result<String, Failure> {
    match server_in_path(name)? {
        "*" => Err(Failure::Usage(
            "one deployment at a time: `mcp-fleet list` names them".into(),
        )),
        name => Ok(format!("/api/deployments/{name}")),
    }
}

/// Standard input, which can be read once.
#[derive(Debug, Default)]
struct Input {
    is_read: bool,
}

impl Input {
    fn read(&mut self) -> Result<String, Failure> {
        if std::mem::replace(&mut self.is_read, true) {
            let message = "standard input can give one value only: use KEY=@FILE for the others";
            return Err(Failure::Usage(message.into()));
        }
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
        Ok(text)
    }
}

/// `KEY=VALUE`, with values from standard input or files. What is wrong is
/// told without the value.
fn pairs(
    flag: &str,
    given: &[String],
    input: &mut Input,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for given in given {
        let Some((key, value)) = given.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            let message = format!("{flag} takes KEY=VALUE, KEY=- or KEY=@FILE");
            return Err(Failure::Usage(message));
        };
        let value = match value.strip_prefix('@') {
            Some(file) => {
                let read = std::fs::read_to_string(file);
                let read =
                    read.map_err(|error| Failure::Usage(format!("{flag} {key}=@{file}: {error}")))?;
                without_line_end(&read)
            }
            None if value == "-" => without_line_end(&input.read()?),
            None => value.to_owned(),
        };
        if pairs.insert(key.to_owned(), value).is_some() {
            return Err(Failure::Usage(format!("{flag} {key} is given twice")));
        }
    }
    Ok(pairs)
}

/// Editors and `echo` end files with a line end, which is no part of a secret.
fn without_line_end(text: &str) -> String {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text).to_owned()
}

fn settings(file: &PathBuf) -> Result<Value, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
    let is_json = file.extension().is_some_and(|ending| ending == "json");
    // Values may be secrets: where it is wrong, not what stands there.
    let value: Result<Value, String> = if is_json {
        serde_json::from_str(&text)
            .map_err(|error| format!("line {}, column {}", error.line(), error.column()))
    } else {
        serde_saphyr::from_str(&text).map_err(|_| "it is not YAML".to_owned())
    };
    match value {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(Failure::Usage(format!(
            "{shown}: expected settings by their keys"
        ))),
        Err(why) => Err(Failure::Usage(format!("{shown}: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_the_command_line_or_files() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cr3t\n").expect("written");
        let from_file = format!("KEY=@{}", file.path().display());
        let given = ["A=b=c".to_owned(), "EMPTY=".to_owned(), from_file];
        let pairs = pairs("-c", &given, &mut Input::default()).expect("good");
        let expected = [("A", "b=c"), ("EMPTY", ""), ("KEY", "s3cr3t")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs, BTreeMap::from(expected));
    }

    #[test]
    fn what_is_wrong_is_told_without_values() {
        for bad in [
            &["s3cr3t"][..],
            &["=s3cr3t"],
            &["A=s3cr3t", "A=s3cr3t"],
            &["A=@/nonexistent/file"],
        ] {
            let bad: Vec<_> = bad.iter().map(|text| (*text).to_owned()).collect();
            let failure = pairs("-c", &bad, &mut Input::default()).expect_err("bad");
            assert!(matches!(failure, Failure::Usage(_)));
            assert!(!failure.to_string().contains("s3cr3t"), "{failure}");
        }
        let mut input = Input { is_read: true };
        let given = ["A=-".to_owned()];
        assert!(matches!(
            pairs("-c", &given, &mut input),
            Err(Failure::Usage(_))
        ));
    }

    #[test]
    fn settings_are_json_or_yaml() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        assert_eq!(
            settings(&file("a.json", r#"{"a": 1}"#)).expect("good"),
            json!({"a": 1})
        );
        assert_eq!(
            settings(&file("a.yaml", "a: 1\n")).expect("good"),
            json!({"a": 1})
        );
        for (name, text) in [("b.json", "{\"a\": s3cr3t}"), ("b.yaml", "- s3cr3t")] {
            let failure = settings(&file(name, text)).expect_err("bad");
            assert!(!failure.to_string().contains("s3cr3t"), "{failure}");
        }
    }
}
