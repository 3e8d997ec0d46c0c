//! `server.json` of the official MCP registry: its OCI package.

use serde_json::{Map, Value, json};

use super::{super::volumes, Draft, is_placeholder};
use crate::secrets::{self, looks_secret, sounds_secret};

pub(super) fn draft(root: &Value) -> Result<Draft, String> {
    let package = oci_package(root)?;
    let mut draft = Draft::default();
    let word = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let name = word(root, "title").or_else(|| word(root, "name"));
    draft.set("name", name.unwrap_or_default());
    draft.set("description", word(root, "description").unwrap_or_default());
    if let Some(version) = word(root, "version") {
        draft.set("version", version);
    }
    draft.set("docker_image", image(package)?);
    let transport = transport(package, &mut draft.notes);
    draft.set("transport", transport);
    if let Some(endpoint) = open_remote(root) {
        draft.set("endpoint", endpoint);
    }
    for variable in list(package, "environmentVariables") {
        if let Some(name) = variable.get("name").and_then(Value::as_str) {
            let about = filled(variable);
            input(&mut draft, &about, name, json!({"env_mapping": name}));
        }
    }
    for argument in list(package, "runtimeArguments") {
        runtime_argument(&mut draft, argument);
    }
    for argument in list(package, "packageArguments") {
        package_argument(&mut draft, argument);
    }
    Ok(draft)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    let items = value.get(key).and_then(Value::as_array);
    items.into_iter().flatten()
}

fn oci_package(root: &Value) -> Result<&Value, String> {
    let kind = |package: &Value| {
        let kind = package.get("registryType").or(package.get("registry_type"));
        kind.and_then(Value::as_str).map(str::to_owned)
    };
    let found = list(root, "packages")
        .find(|package| matches!(kind(package).as_deref(), Some("oci" | "docker")));
    found.ok_or_else(|| {
        let kinds: Vec<_> = list(root, "packages").filter_map(kind).collect();
        match kinds.is_empty() {
            true => {
                "is reached by its address and needs no template: --mcp-json takes it".to_owned()
            }
            false => format!(
                "has no image, only packages of {}: run one with `servers.NAME.command`",
                kinds.join(", ")
            ),
        }
    })
}

fn image(package: &Value) -> Result<String, String> {
    let word = |key: &str| package.get(key).and_then(Value::as_str);
    let identifier = word("identifier").ok_or("its package names no image")?;
    let base = word("registryBaseUrl").or(word("registry_base_url"));
    let host = base.and_then(host).filter(|_| !names_host(identifier));
    let host = host.map(|host| host + "/").unwrap_or_default();
    let last = identifier.rsplit('/').next().unwrap_or(identifier);
    Ok(match word("version") {
        Some(version) if !last.contains([':', '@']) => format!("{host}{identifier}:{version}"),
        _ => format!("{host}{identifier}"),
    })
}

/// The registry at that address; engines take Docker's own when none is named.
fn host(base: &str) -> Option<String> {
    let base = base.split_once("://").map_or(base, |(_, rest)| rest);
    let host = base.split('/').next().unwrap_or(base);
    let is_docker = host == "docker.io" || host.ends_with(".docker.io");
    let is_docker = is_docker || host.ends_with(".docker.com");
    (!is_docker && !host.is_empty()).then(|| host.to_owned())
}

/// Whether the name of an image begins with its registry, as engines see it.
fn names_host(image: &str) -> bool {
    let first = image.split_once('/').map(|(first, _)| first);
    first.is_some_and(|first| first.contains(['.', ':']) || first == "localhost")
}

/// The port is in an address such as `http://localhost:{port}/mcp`.
fn transport(package: &Value, notes: &mut Vec<String>) -> Value {
    let transport = package.get("transport");
    let word = |key: &str| transport?.get(key)?.as_str();
    let kind = word("type").unwrap_or("stdio");
    if kind == "stdio" {
        return json!({"default": "stdio", "supported": ["stdio"]});
    }
    let url = word("url").map(|url| with_values(url, |name| value_of(package, name)));
    // What nobody knows is no port.
    let url = url.map(|url| with_values(&url, |_| Some("0")));
    let url = url.and_then(|url| url::Url::parse(&url).ok());
    let port = url.as_ref().and_then(url::Url::port);
    let port = port.filter(|port| *port != 0);
    if port.is_none() {
        notes.push("its port is not known: look at transport.port".to_owned());
    }
    let path = url.map_or_else(|| "/mcp".to_owned(), |url| url.path().to_owned());
    json!({"default": kind, "supported": [kind], "port": port.unwrap_or(8080), "path": path})
}

/// A remote that nobody has to sign in to can be asked for its tools.
fn open_remote(root: &Value) -> Option<String> {
    let remote = list(root, "remotes").find(|remote| {
        let kind = remote.get("type").and_then(Value::as_str);
        let required = |header: &Value| header.get("isRequired") == Some(&Value::Bool(true));
        kind == Some("streamable-http") && !list(remote, "headers").any(required)
    })?;
    let url = remote.get("url")?.as_str()?;
    (!url.contains('{')).then(|| url.to_owned())
}

/// Something a user may have to say; `place` is where it goes.
fn input(draft: &mut Draft, about: &Value, name: &str, place: Value) {
    let flag = |key: &str| about.get(key) == Some(&Value::Bool(true));
    let given = given(about);
    let is_secret = is_secret(about, name);
    let mut schema = json!({"type": kind(about)});
    for (theirs, ours) in [("description", "description"), ("choices", "enum")] {
        if let Some(value) = about.get(theirs) {
            schema[ours] = value.clone();
        }
    }
    if flag("isRepeated") {
        schema = json!({"type": "array", "items": schema});
    }
    if is_secret {
        schema["sensitive"] = true.into();
    }
    let is_dropped = is_secret && given.is_some_and(|value| !value.is_empty());
    if is_dropped {
        draft.not_copied(name);
    }
    let default = given.filter(|_| !is_secret);
    if let Some(default) = default {
        schema["default"] = typed(&schema, default);
    }
    if let (Some(schema), Value::Object(place)) = (schema.as_object_mut(), place) {
        schema.extend(place);
    }
    let required = default.is_none() && (flag("isRequired") || is_dropped);
    draft.property(name, schema, required);
}

/// The value that is always the same, or counts when nobody says.
fn given(about: &Value) -> Option<&str> {
    let word = |key: &str| about.get(key).and_then(Value::as_str);
    let fixed = word("value").filter(|value| !has_variable(value));
    let given = word("default").or(fixed);
    given.filter(|value| !is_placeholder(value))
}

fn is_secret(about: &Value, name: &str) -> bool {
    let says_so = about.get("isSecret") == Some(&Value::Bool(true));
    let is_text = kind(about) == "string";
    says_so || (is_text && sounds_secret(name)) || given(about).is_some_and(looks_secret)
}

fn kind(about: &Value) -> &'static str {
    match about.get("format").and_then(Value::as_str) {
        Some("number") => "number",
        Some("boolean") => "boolean",
        _ => "string",
    }
}

fn typed(schema: &Value, text: &str) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => (text == "true").into(),
        Some("number") => match text.parse::<i64>() {
            Ok(whole) => whole.into(),
            Err(_) => text
                .parse::<f64>()
                .map_or_else(|_| text.into(), Value::from),
        },
        Some("array") => json!([text]),
        _ => text.into(),
    }
}

fn has_variable(text: &str) -> bool {
    text.contains('{') && text.contains('}')
}

/// What a package says of a variable, or of the setting of that name.
fn value_of<'a>(package: &'a Value, name: &str) -> Option<&'a str> {
    let lists = [
        "packageArguments",
        "runtimeArguments",
        "environmentVariables",
    ];
    let items = lists.into_iter().flat_map(|key| list(package, key));
    let mut items = items.chain(package.get("transport"));
    items.find_map(|item| {
        let is_named = |key: &str| {
            let known = item.get(key).and_then(Value::as_str);
            known.is_some_and(|known| known.trim_start_matches('-') == name)
        };
        let own = Some(item).filter(|_| is_named("name") || is_named("valueHint"));
        let variable = item.get("variables").and_then(|all| all.get(name));
        variable.or(own).and_then(given)
    })
}

/// A text with the values of those of its variables that have one.
fn with_values<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        filled += before;
        match value(name) {
            Some(value) => filled += value,
            None => filled += &format!("{{{name}}}"),
        }
        rest = after;
    }
    filled + rest
}

/// An input whose value names variables, as one whose value is said as a
/// whole: a variable that stands alone is the input, of others the defaults
/// are put in.
fn filled(about: &Value) -> Value {
    let Some(text) = about.get("value").and_then(Value::as_str) else {
        return about.clone();
    };
    if !has_variable(text) {
        return about.clone();
    }
    let none = Map::new();
    let variables = about.get("variables").and_then(Value::as_object);
    let variables = variables.unwrap_or(&none);
    let mut filled = about.clone();
    filled["value"] = Value::Null;
    let alone = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    if let Some(Value::Object(variable)) = alone.and_then(|name| variables.get(name)) {
        let about_it = variable
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "name" | "type"));
        for (key, value) in about_it {
            filled[key] = value.clone();
        }
        return filled;
    }
    let whole = with_values(text, |name| variables.get(name).and_then(given));
    if !has_variable(&whole) {
        filled["default"] = whole.into();
    }
    let said = |key: &str| {
        variables
            .values()
            .any(|it| it.get(key) == Some(&Value::Bool(true)))
    };
    for key in ["isSecret", "isRequired"] {
        if said(key) {
            filled[key] = true.into();
        }
    }
    let description = about.get("description").and_then(Value::as_str);
    let description = description.unwrap_or_default();
    filled["description"] = format!("{description} In the form {text}.")
        .trim_start()
        .into();
    filled
}

/// An argument of the server. Those that are always the same come first, in
/// the command; from the first that is not, all are settings, to keep order.
fn package_argument(draft: &mut Draft, argument: &Value) {
    let argument = &filled(argument);
    let word = |key: &str| argument.get(key).and_then(Value::as_str);
    let is_named = word("type") == Some("named");
    let value = word("value");
    let name = word("name").unwrap_or_default();
    let wanted = word("valueHint").or(word("name")).unwrap_or("argument");
    if let Some(value) = value.filter(|_| !is_named) {
        let before = draft.command.last().and_then(Value::as_str);
        let before = before.unwrap_or_default().to_owned();
        // Its own name or the flag before it may say that it is one.
        if let Some(secret) = secrets::in_words([&*before, value])[1] {
            draft.secret_word(&before, value, secret);
            return;
        }
    }
    const VALUED: [&str; 7] = [
        "value",
        "default",
        "valueHint",
        "placeholder",
        "format",
        "choices",
        "variables",
    ];
    let is_valued = VALUED.iter().any(|key| argument.get(*key).is_some());
    let is_switch = is_named && !is_valued && !is_secret(argument, name);
    let is_always = is_switch && argument.get("isRequired") == Some(&Value::Bool(true));
    if is_switch && !is_always {
        draft.note(format!("{name} was taken for a switch: it names no value"));
        let description = word("description").unwrap_or_default();
        let switch = json!({
            "type": "boolean", "default": false, "command_arg": name, "description": description,
        });
        draft.property(name, switch, false);
        return;
    }
    if is_always && draft.has_arguments() {
        draft.word(name);
        return;
    }
    let is_fixed = (value.is_some() || is_always) && !is_secret(argument, name);
    if is_fixed && !draft.has_arguments() {
        if is_named {
            draft.command.push(name.into());
        }
        draft.command.extend(value.map(Value::from));
        return;
    }
    if is_named {
        input(draft, argument, name, json!({"command_arg": name}));
    } else {
        input(draft, argument, wanted, json!({"command_arg": "{}"}));
    }
}

/// An argument of `docker run`: variables and mounts are understood.
fn runtime_argument(draft: &mut Draft, argument: &Value) {
    let word = |key: &str| argument.get(key).and_then(Value::as_str);
    let name = word("name").unwrap_or_default();
    let value = word("value").or(word("default")).unwrap_or_default();
    match name {
        "-e" | "--env" => {
            let (name, value) = match value.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (value, None),
            };
            let mut about = argument.clone();
            about["default"] = Value::Null;
            about["value"] = value.into();
            let mut about = filled(&about);
            about["isRequired"] = true.into();
            input(draft, &about, name, json!({"env_mapping": name}));
        }
        "-v" | "--volume" | "--mount" => {
            let part = |keys: &[&str]| {
                let mut parts = value.split(',').filter_map(|part| part.split_once('='));
                parts
                    .find(|(key, _)| keys.contains(key))
                    .map(|(_, value)| value)
            };
            let mut parts = value.split(':');
            let (source, target) = match name {
                "--mount" => (
                    part(&["src", "source"]),
                    part(&["dst", "target", "destination"]),
                ),
                _ => (parts.next(), parts.next()),
            };
            let is_read_only = match name {
                "--mount" => value
                    .split(',')
                    .any(|part| matches!(part, "ro" | "readonly")),
                _ => parts.any(|options| options.split(',').any(|option| option == "ro")),
            };
            match target.filter(|target| target.starts_with('/') && !has_variable(target)) {
                Some(target) => {
                    let place = json!({
                        "volume_mount": {"target": target, "read_only": is_read_only},
                    });
                    let mut about = filled(&json!({
                        "description": word("description").unwrap_or_default(),
                        "isRequired": argument.get("isRequired"),
                        "value": source,
                        "variables": argument.get("variables"),
                    }));
                    let default = given(&about).filter(|it| volumes::parse(it).is_ok());
                    about["default"] = default.into();
                    about["value"] = Value::Null;
                    let last = target.rsplit('/').next().unwrap_or("directory");
                    input(draft, &about, last, place);
                }
                None => draft.note(format!("{name} {value} was left out")),
            }
        }
        "-i" | "--rm" | "-it" | "--interactive" => {}
        _ => draft.note(format!("{name} {value} was left out").trim().to_owned()),
    }
}
