//! `templates` and `template`: recipes for servers, as a node knows them; and
//! making some from files that users have.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure, TemplateArgs, TemplatesAction, TemplatesArgs, client,
    client::Node,
    output::{short, table},
    say,
    views::print,
};
use crate::mcp::Raw;
use crate::templates::import;

pub(super) fn templates(args: TemplatesArgs) -> Result<(), Failure> {
    match args.action {
        None => client::run(async {
            let raw = Node::at(&args.node.node)?.get("/api/templates").await?;
            print(&args.node, &raw, list)
        }),
        Some(TemplatesAction::Import {
            file,
            directory,
            force,
        }) => import_file(&file, &directory, force),
    }
}

pub(super) async fn template(args: TemplateArgs) -> Result<(), Failure> {
    let name: String = url::form_urlencoded::byte_serialize(args.name.as_bytes()).collect();
    let path = format!("/api/templates/{}?tools=true", name.replace('+', "%20"));
    let raw = Node::at(&args.node.node)?.get(&path).await?;
    print(&args.node, &raw, one)
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Template {
    name: String,
    title: String,
    version: Option<String>,
    transport: String,
    image: String,
    description: String,
    origin: String,
    problems: Vec<Problem>,
    speaks: Speaks,
    settings: Vec<Setting>,
    isolation: Isolation,
    warnings: Vec<Problem>,
    tools: Option<Tools>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Problem {
    place: String,
    key: String,
    message: String,
}

impl Problem {
    fn text(&self) -> String {
        match self.key.as_str() {
            "" => format!("{}: {}", self.place, self.message),
            key => format!("{}: {key}: {}", self.place, self.message),
        }
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Speaks {
    port: Option<u16>,
    path: Option<String>,
    stdio_mode: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Setting {
    name: String,
    title: Option<String>,
    description: Option<String>,
    types: Vec<String>,
    choices: Vec<Value>,
    default: Option<Value>,
    required: bool,
    sensitive: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Isolation {
    memory: u64,
    cpus: f64,
    pids: u64,
    read_only: bool,
    tmpfs: u64,
    user: String,
    network: String,
    capabilities: Vec<String>,
    loosened: Vec<Loosened>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Loosened {
    what: String,
    reason: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Tools {
    tools: Vec<Tool>,
    source: Option<String>,
    server: Option<String>,
    cached: bool,
    age_ms: u64,
    silent: Vec<Silent>,
    error: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Tool {
    name: String,
    title: Option<String>,
    description: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Silent {
    source: String,
    reason: String,
}

fn list(raw: &Raw) -> Result<String, serde_json::Error> {
    let templates: Vec<Template> = serde_json::from_str(raw.get())?;
    let (usable, broken): (Vec<_>, Vec<_>) = templates
        .iter()
        .partition(|template| template.problems.is_empty());
    let rows: Vec<_> = usable
        .iter()
        .map(|template| {
            vec![
                template.name.clone(),
                template.version.clone().unwrap_or_else(|| "-".into()),
                template.transport.clone(),
                short(&template.image, 48),
                short(&template.description, 60),
                template.origin.clone(),
            ]
        })
        .collect();
    let titles = [
        "TEMPLATE",
        "VERSION",
        "SPEAKS",
        "IMAGE",
        "WHAT IT IS FOR",
        "FROM",
    ];
    let mut text = table(&titles, &rows);
    for template in broken {
        text.push_str(&format!("\n{} cannot be used:\n", template.name));
        for problem in &template.problems {
            text.push_str(&format!("  {}\n", problem.text()));
        }
    }
    Ok(text)
}

fn one(raw: &Raw) -> Result<String, serde_json::Error> {
    let template: Template = serde_json::from_str(raw.get())?;
    let version = template.version.as_deref();
    let version = version
        .map(|version| format!(" {version}"))
        .unwrap_or_default();
    let mut text = format!("{} ({}{version})\n", template.name, template.title);
    if !template.description.is_empty() {
        text.push_str(&format!("{}\n", template.description));
    }
    text.push('\n');
    let rows = [
        ("image", template.image.clone()),
        ("speaks", speaks(&template)),
        ("from", template.origin.clone()),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), value])
        .collect();
    text.push_str(&table(&[], &rows));
    text.push_str("\nsettings\n");
    text.push_str(&settings(&template.settings));
    text.push_str("\nlimits\n");
    text.push_str(&limits(&template.isolation));
    if let Some(tools) = &template.tools {
        text.push_str(&tools_text(tools));
    }
    for warning in &template.warnings {
        text.push_str(&format!("\nwarning: {}\n", warning.text()));
    }
    Ok(text)
}

fn speaks(template: &Template) -> String {
    let speaks = &template.speaks;
    match (speaks.port, &speaks.path, &speaks.stdio_mode) {
        (Some(port), Some(path), _) => format!("http, port {port}, path {path}"),
        (_, _, Some(mode)) => format!("stdio, {mode}"),
        _ => template.transport.clone(),
    }
}

fn settings(settings: &[Setting]) -> String {
    if settings.is_empty() {
        return "  none\n".to_owned();
    }
    let rows: Vec<_> = settings.iter().map(Setting::row).collect();
    let titles = ["SETTING", "TYPE", "DEFAULT", "", "WHAT IT IS FOR"];
    table(&titles, &rows)
}

impl Setting {
    fn row(&self) -> Vec<String> {
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let kind = match self.choices.as_slice() {
            [] if self.types.is_empty() => "any".to_owned(),
            [] => self.types.join(" or "),
            choices => choices.iter().map(shown).collect::<Vec<_>>().join("|"),
        };
        let mut marks = Vec::new();
        if self.required {
            marks.push("required");
        }
        if self.sensitive {
            marks.push("secret");
        }
        let about = self.description.as_ref().or(self.title.as_ref());
        vec![
            self.name.clone(),
            short(&kind, 40),
            self.default
                .as_ref()
                .map_or_else(|| "-".into(), |v| short(&shown(v), 30)),
            marks.join(", "),
            about.cloned().unwrap_or_default(),
        ]
    }
}

/// Limits, with a reason beside those that were loosened.
fn limits(isolation: &Isolation) -> String {
    let root = if isolation.read_only {
        "read-only"
    } else {
        "writable"
    };
    let user = match isolation.user.as_str() {
        "" => "the image's own",
        user => user,
    };
    let capabilities = match isolation.capabilities.is_empty() {
        true => "none".to_owned(),
        false => isolation.capabilities.join(", "),
    };
    let network = match isolation.network.as_str() {
        "internal" => "internal: reaches nobody",
        "egress" => "egress: reaches what the engine's machine can",
        other => other,
    };
    let rows = [
        ("memory", "memory", size(isolation.memory)),
        ("cpus", "processors", isolation.cpus.to_string()),
        ("pids", "processes", isolation.pids.to_string()),
        ("read_only", "root file system", root.to_owned()),
        ("tmpfs", "/tmp", size(isolation.tmpfs)),
        ("user", "user", user.to_owned()),
        ("network", "network", network.to_owned()),
        ("capabilities", "capabilities", capabilities),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(key, words, value)| {
            let loosened = isolation.loosened.iter().find(|one| one.what == key);
            let reason = loosened.map(|one| format!("loosened: {}", one.reason));
            vec![words.to_owned(), value, reason.unwrap_or_default()]
        })
        .collect();
    table(&[], &rows)
}

fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        bytes => format!("{} MiB", bytes >> 20),
    }
}

fn tools_text(tools: &Tools) -> String {
    let mut text = match (&tools.source, &tools.error) {
        (Some(source), _) => format!("\ntools ({})\n", told_by(source, tools)),
        (None, Some(error)) => return format!("\ntools\n  not known: {error}\n"),
        (None, None) => return String::new(),
    };
    let rows: Vec<_> = tools
        .tools
        .iter()
        .map(|tool| {
            let about = tool.description.as_ref().or(tool.title.as_ref());
            let about = about.map(|text| short(text, 90)).unwrap_or_default();
            vec![tool.name.clone(), about]
        })
        .collect();
    match rows.is_empty() {
        true => text.push_str("  none\n"),
        false => text.push_str(&table(&[], &rows)),
    }
    for silent in &tools.silent {
        let source = source_in_words(&silent.source);
        text.push_str(&format!("  ({source} told nothing: {})\n", silent.reason));
    }
    text
}

fn told_by(source: &str, tools: &Tools) -> String {
    let who = match &tools.server {
        Some(server) => format!("told by server {server}"),
        None => format!("told by {}", source_in_words(source)),
    };
    let age = tools.age_ms / 1000;
    match (tools.cached, age) {
        (false, _) => format!("{who}, just now"),
        (true, 0) => format!("{who}, a moment ago"),
        (true, seconds @ 1..120) => format!("{who}, {seconds} s ago"),
        (true, seconds) => format!("{who}, {} min ago", seconds / 60),
    }
}

fn source_in_words(source: &str) -> &str {
    match source {
        "servers" => "its servers",
        "endpoint" => "its endpoint",
        "ephemeral" => "a container started to be asked",
        "static" => "the template itself",
        other => other,
    }
}

fn import_file(file: &Path, directory: &Path, force: bool) -> Result<(), Failure> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::Failed(format!("{}: {error}", path.display()))
    };
    let text = match file == Path::new("-") {
        true => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map(|_| text)
        }
        false => fs::read_to_string(file),
    };
    let text = text.map_err(|error| failed(file, &error))?;
    let import = import::import(&text).map_err(|error| failed(file, &error))?;
    for why in &import.skipped {
        say(&format!("left out: {why}"));
    }
    let paths: Vec<PathBuf> = import
        .templates
        .iter()
        .map(|template| directory.join(template.name.as_str()).join("template.json"))
        .collect();
    if let Some(there) = paths.iter().find(|path| path.exists()).filter(|_| !force) {
        return Err(failed(there, &"is there already; --force writes over it"));
    }
    for (template, path) in import.templates.iter().zip(&paths) {
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
        // Nodes may be looking: they find the whole file or the one before.
        let whole = parent.join(".template.json");
        fs::write(&whole, &template.text)
            .and_then(|()| fs::rename(&whole, path))
            .map_err(|error| failed(path, &error))?;
        say(&format!("wrote {}", path.display()));
        for note in &template.notes {
            say(&format!("  note: {note}"));
        }
    }
    if paths.is_empty() {
        return Err(Failure::Failed(format!(
            "no template came of {}",
            file.display()
        )));
    }
    let directory = directory.display();
    say(&format!(
        "nodes with templates.directories = [\"{directory}\"] have them from now on"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(view: fn(&Raw) -> Result<String, serde_json::Error>, json: &str) -> String {
        view(serde_json::from_str(json).expect("JSON")).expect("a table")
    }

    #[test]
    fn templates_are_listed_and_broken_ones_say_why() {
        let text = shown(
            list,
            r#"[{"name":"time","title":"Time","version":"1.0","transport":"stdio","image":"mcp/time:latest",
                 "description":"Tells the time.\nMore.","origin":"built-in"},
                {"name":"bad","problems":[{"place":"/t/bad/template.json:3:5","key":"docker_image","message":"is missing"}]}]"#,
        );
        assert!(
            text.contains(
                "  time      1.0      stdio   mcp/time:latest  Tells the time.  built-in\n"
            ),
            "{text}"
        );
        assert!(
            text.ends_with(
                "\nbad cannot be used:\n  /t/bad/template.json:3:5: docker_image: is missing\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_template_is_shown_with_settings_limits_and_tools() {
        let text = shown(
            one,
            r#"{"name":"fetch","title":"Fetch","version":"1.0.0","transport":"stdio","image":"mcp/fetch:latest",
                "description":"Gets pages.","origin":"built-in","speaks":{"stdio_mode":"shared"},
                "settings":[{"name":"key","types":["string"],"required":true,"sensitive":true,"default":"***","description":"Key."},
                            {"name":"level","types":["string"],"choices":["low","high"],"default":"low"}],
                "isolation":{"memory":536870912,"cpus":1.0,"pids":128,"read_only":true,"tmpfs":67108864,"user":"65532:65532",
                             "network":"egress","loosened":[{"what":"network","reason":"the web"}]},
                "tools":{"tools":[{"name":"fetch","description":"A page."}],"source":"static","cached":true,"age_ms":5400,
                         "silent":[{"source":"endpoint","reason":"no answer in time"}]}}"#,
        );
        for expected in [
            "fetch (Fetch 1.0.0)\nGets pages.\n",
            "  speaks  stdio, shared\n",
            "  key      string    ***      required, secret  Key.\n",
            "  level    low|high  low\n",
            "loosened: the web\n",
            "  memory            512 MiB\n",
            "tools (told by the template itself, 5 s ago)\n  fetch  A page.\n",
            "(its endpoint told nothing: no answer in time)",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
    }
}
