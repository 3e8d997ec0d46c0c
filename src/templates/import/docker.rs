//! An entry of an `mcpServers` file whose command is `docker run ... IMAGE`.

use serde_json::{Map, Value, json};

use super::Draft;

/// Long flags of `docker run`, and of `podman run`, that stand alone.
const ALONE: [&str; 23] = [
    "--detach",
    "--disable-content-trust",
    "--env-host",
    "--help",
    "--http-proxy",
    "--init",
    "--interactive",
    "--no-healthcheck",
    "--no-hosts",
    "--oom-kill-disable",
    "--passwd",
    "--privileged",
    "--publish-all",
    "--quiet",
    "--read-only",
    "--read-only-tmpfs",
    "--replace",
    "--rm",
    "--rmi",
    "--sig-proxy",
    "--tls-verify",
    "--tty",
    "--use-api-socket",
];

/// Short ones, of which one word may have several.
const LETTERS: [char; 5] = ['P', 'd', 'i', 'q', 't'];

/// Flags that mean nothing here: limits and names are the fleet's affair.
const OURS: [&str; 8] = [
    "--name",
    "--memory",
    "-m",
    "--cpus",
    "--pids-limit",
    "--pull",
    "--label",
    "-l",
];

pub(super) fn draft(name: &str, entry: &Value) -> Result<Draft, String> {
    let word = |key: &str| entry.get(key).and_then(Value::as_str);
    if word("url").or(word("serverUrl")).is_some() {
        return Err("is reached by its address and needs no template: --mcp-json takes it".into());
    }
    let program = word("command").unwrap_or_default();
    let program = program.rsplit(['/', '\\']).next().unwrap_or(program);
    if !matches!(program, "docker" | "docker.exe" | "podman") {
        return Err(
            "runs a program and no image: --mcp-json runs it beside the node as it is".into(),
        );
    }
    let args: Vec<&str> = entry
        .get("args")
        .and_then(Value::as_array)
        .map(|args| args.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let none = Map::new();
    let values = entry.get("env").and_then(Value::as_object);
    let mut reader = Reader {
        args: args.into_iter(),
        values: values.unwrap_or(&none),
        draft: Draft::default(),
    };
    let image = reader.flags()?;
    let rest: Vec<&str> = reader.args.collect();
    let mut draft = reader.draft;
    draft.words(&rest);
    draft.set("name", name);
    draft.set("description", format!("Runs {image}."));
    draft.set("docker_image", image);
    draft.set(
        "transport",
        json!({"default": "stdio", "supported": ["stdio"]}),
    );
    draft.note(
        "it reaches no other machine: if it has to, add \"isolation\": {\"network\": {\"value\": \
         \"egress\", \"reason\": \"..\"}}",
    );
    Ok(draft)
}

struct Reader<'a, I> {
    args: I,
    values: &'a Map<String, Value>,
    draft: Draft,
}

impl<'a, I: Iterator<Item = &'a str>> Reader<'a, I> {
    /// Everything up to the image, which is returned.
    fn flags(&mut self) -> Result<String, String> {
        let mut command = self.args.by_ref().skip_while(|word| *word == "container");
        if command.next() != Some("run") {
            return Err("expected `docker run`".to_owned());
        }
        while let Some(word) = self.args.next() {
            if word == "--" {
                break;
            }
            if !word.starts_with('-') {
                return Ok(word.to_owned());
            }
            self.flags_in(word)?;
        }
        let image = self.args.next();
        image
            .map(str::to_owned)
            .ok_or_else(|| "names no image".to_owned())
    }

    /// The flags of one word; the value of the last may be the next word.
    fn flags_in(&mut self, word: &'a str) -> Result<(), String> {
        let (flag, value) = if word.starts_with("--") {
            let parts = word.split_once('=');
            parts.map_or((word.to_owned(), None), |(flag, value)| {
                (flag.to_owned(), Some(value))
            })
        } else {
            let rest = word[1..].trim_start_matches(LETTERS);
            let Some(letter) = rest.chars().next() else {
                return Ok(());
            };
            let value = &rest[letter.len_utf8()..];
            let value = value.strip_prefix('=').unwrap_or(value);
            let value = Some(value).filter(|value| !value.is_empty());
            (format!("-{letter}"), value)
        };
        if flag == "--privileged" {
            self.draft
                .note("--privileged was left out: no container of the fleet is");
        }
        if ALONE.contains(&&*flag) {
            return Ok(());
        }
        let value = value.or_else(|| self.args.next());
        let value = value.ok_or_else(|| format!("{flag} without its value"))?;
        self.flag(&flag, value);
        Ok(())
    }

    fn flag(&mut self, flag: &str, value: &str) {
        match flag {
            "-e" | "--env" => match value.split_once('=') {
                Some((name, value)) => self.draft.variable(name, Some(value)),
                None => {
                    let given = self.values.get(value).and_then(Value::as_str);
                    self.draft.variable(value, given);
                }
            },
            "-v" | "--volume" => self.mount(value),
            "--mount" => {
                let part = |names: &[&str]| {
                    let mut parts = value.split(',').filter_map(|part| part.split_once('='));
                    parts
                        .find(|(key, _)| names.contains(key))
                        .map(|(_, value)| value)
                };
                let read_only = value
                    .split(',')
                    .any(|part| matches!(part, "ro" | "readonly"));
                let mode = if read_only { ":ro" } else { "" };
                match (
                    part(&["src", "source"]),
                    part(&["dst", "target", "destination"]),
                ) {
                    (Some(source), Some(target)) => self.mount(&format!("{source}:{target}{mode}")),
                    _ => self.draft.note(format!("--mount {value} was left out")),
                }
            }
            "--entrypoint" => self.draft.set("entrypoint", vec![value]),
            flag if OURS.contains(&flag) => {}
            flag => self.draft.note(format!("{flag} {value} was left out")),
        }
    }

    /// A mount whose source is the next user's to say.
    fn mount(&mut self, text: &str) {
        let (text, options) = match text.rsplit_once(':') {
            Some((text, options)) if !options.contains('/') => (text, options),
            _ => (text, ""),
        };
        let read_only = options.split(',').any(|option| option == "ro");
        let Some((source, target)) = text.rsplit_once(':') else {
            self.draft
                .note(format!("-v {text} was left out: it names no source"));
            return;
        };
        let last = target
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or("directory");
        let mut schema = json!({
            "type": "array", "items": {"type": "string"}, "maxItems": 1,
            "description": format!("What appears as {target} in the container."),
            "volume_mount": {"target": target, "read_only": read_only},
        });
        let is_usable = super::super::volumes::parse(source).is_ok();
        if is_usable {
            schema["default"] = json!([source]);
        } else {
            self.draft.note(format!(
                "{source} is not known on an engine's machine: say what appears as {target} when \
                 deploying"
            ));
        }
        self.draft.property(last, schema, !is_usable);
    }
}
