//! From a template and settings to what is to run. Pure.
//!
//! Flags outrank the file, which outranks the template's defaults. Everything
//! that is wrong is told at once, and nothing of a secret.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::{Map, Value as Json};

use super::{
    coerce,
    property::{ArgumentRule, Property, is_variable, shown},
    settings::{SettingProblem, Settings, SettingsErrors},
    spec::{Mount, ServerSpec, Value},
    template::Template,
    volumes,
};

impl Template {
    /// What runs when these settings are given.
    ///
    /// # Errors
    /// With everything that is wrong with the settings.
    pub fn resolve(&self, given: &Settings) -> Result<ServerSpec, SettingsErrors> {
        let mut resolution = Resolution {
            template: self,
            problems: Vec::new(),
            spoiled: BTreeSet::new(),
        };
        let values = resolution.values(given);
        resolution.validate(&values);
        let spec = resolution.spec(&values, given);
        if resolution.problems.is_empty() {
            Ok(spec)
        } else {
            Err(SettingsErrors {
                template: self.name.to_string(),
                problems: resolution.problems,
            })
        }
    }
}

struct Resolution<'a> {
    template: &'a Template,
    problems: Vec<SettingProblem>,
    /// Keys about which enough has been said.
    spoiled: BTreeSet<String>,
}

impl Resolution<'_> {
    fn fail(&mut self, key: &str, message: impl Into<String>) {
        self.spoiled.insert(key.to_owned());
        let problem = SettingProblem {
            key: key.to_owned(),
            message: message.into(),
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The values that count, as one object.
    fn values(&mut self, given: &Settings) -> Map<String, Json> {
        let mut values = Map::new();
        let file = self.file(given.file.as_ref());
        let unknown = given.config.keys().chain(file.keys());
        for key in unknown.cloned().collect::<BTreeSet<_>>() {
            if self.template.property(&key).is_none() {
                let message = self.unknown(&key);
                self.fail(&key, message);
            }
        }
        for property in &self.template.properties {
            let flag = given.config.get(&property.name);
            let variable = property.env.as_ref().and_then(|name| given.env.get(name));
            if let (Some(flag), Some(variable), Some(name)) = (flag, variable, &property.env)
                && flag != variable
            {
                let message = format!("is given twice: by itself and as the variable {name}");
                self.fail(&property.name, message);
                continue;
            }
            let value = match flag.or(variable) {
                Some(text) => match coerce::from_text(property, text) {
                    Ok(value) => value,
                    Err(expected) => {
                        let found = found(property, &Json::from(text.as_str()));
                        let message = format!("expected {expected}, found {found}");
                        self.fail(&property.name, message);
                        continue;
                    }
                },
                None => match file.get(&property.name).or(property.default.as_ref()) {
                    Some(value) if !value.is_null() => value.clone(),
                    _ => continue,
                },
            };
            values.insert(property.name.clone(), value);
        }
        values
    }

    fn file(&mut self, file: Option<&Json>) -> Map<String, Json> {
        match file {
            None | Some(Json::Null) => Map::new(),
            Some(Json::Object(settings)) => settings.clone(),
            Some(_) => {
                let message = "the file of settings: expected an object with a value per setting";
                self.fail("", message);
                Map::new()
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        let names = || self.template.properties.iter().map(|p| p.name.as_str());
        let mut properties = self.template.properties.iter();
        let by_variable = properties
            .find(|property| property.env.as_deref() == Some(key))
            .map(|property| property.name.as_str());
        let wanted = key.to_lowercase().replace('-', "_");
        let likeness = |name: &str| {
            strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase().replace('-', "_"))
        };
        let similar = names()
            .map(|name| (likeness(name), name))
            .filter(|(likeness, _)| *likeness >= 0.6)
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, name)| name);
        match by_variable.or(similar) {
            Some(name) => format!("is not a setting of this template; did you mean `{name}`?"),
            None if names().next().is_none() => {
                "is not a setting of this template, which has none".to_owned()
            }
            None => {
                let names: Vec<_> = names().collect();
                format!(
                    "is not a setting of this template; it has {}",
                    names.join(", ")
                )
            }
        }
    }

    /// Asks the compiled schema.
    fn validate(&mut self, values: &Map<String, Json>) {
        let instance = Json::Object(values.clone());
        let template = self.template;
        for error in template.validator.iter_errors(&instance) {
            self.explain(&error);
        }
    }

    fn explain(&mut self, error: &ValidationError<'_>) {
        let path = error.instance_path().to_string();
        let mut steps = path.split('/').skip(1).map(unescaped);
        let Some(key) = steps.next() else {
            self.explain_whole(error);
            return;
        };
        if self.spoiled.contains(&key) {
            return;
        }
        let within: Vec<_> = steps.collect();
        let property = self.template.property(&key);
        let expected = expectation(error, property.filter(|_| within.is_empty()));
        let found = match property {
            Some(property) => found(property, error.instance()),
            None => "something else".to_owned(),
        };
        let message = if within.is_empty() {
            format!("expected {expected}, found {found}")
        } else {
            format!(
                "at {}: expected {expected}, found {found}",
                within.join(".")
            )
        };
        // Several items may be wrong.
        self.fail(&key, message);
        if !within.is_empty() {
            self.spoiled.remove(&key);
        }
    }

    /// What concerns no single setting.
    fn explain_whole(&mut self, error: &ValidationError<'_>) {
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = coerce::to_text(property);
                if self.spoiled.contains(&name) {
                    return;
                }
                let message = self.how_to_give(&name);
                self.fail(&name, message);
            }
            // Told by `values` already, with what may have been meant.
            ValidationErrorKind::AdditionalProperties { .. }
            | ValidationErrorKind::UnevaluatedProperties { .. } => {}
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                let ways: Vec<_> = context.iter().map(|errors| self.missing(errors)).collect();
                let known = ways.iter().all(|way| !way.is_empty());
                let message = if known && !ways.is_empty() {
                    format!("give one of these: {}", ways.join("; or "))
                } else {
                    "together the settings are none of the combinations the template takes"
                        .to_owned()
                };
                self.fail("", message);
            }
            ValidationErrorKind::OneOfMultipleValid { .. } => {
                let message = "more is given than may be given at once: the template takes one of \
                               several combinations";
                self.fail("", message);
            }
            _ => {
                let message = format!("together the settings do not fit: {}", error.masked());
                self.fail("", message);
            }
        }
    }

    /// The settings that errors call missing.
    fn missing(&self, errors: &[ValidationError<'_>]) -> String {
        let names = errors.iter().filter_map(|error| match error.kind() {
            ValidationErrorKind::Required { property } => Some(coerce::to_text(property)),
            _ => None,
        });
        names.collect::<Vec<_>>().join(" and ")
    }

    fn how_to_give(&self, name: &str) -> String {
        let Some(property) = self.template.property(name) else {
            return "is required, but the template does not describe it".to_owned();
        };
        let about = property.description.as_ref().or(property.title.as_ref());
        let about = about
            .map(|about| format!(" ({})", about.trim().trim_end_matches('.')))
            .unwrap_or_default();
        let example = match property.types.first().map(String::as_str) {
            Some("integer" | "number") => "5",
            Some("boolean") => "true",
            _ => "VALUE",
        };
        let variable = property.env.as_ref();
        let variable = variable
            .map(|variable| format!(", -e {variable}={example}"))
            .unwrap_or_default();
        format!(
            "is required{about}: give -c {name}={example}{variable} or `{name}` in the file (-f)"
        )
    }

    /// What the values come to.
    fn spec(&mut self, values: &Map<String, Json>, given: &Settings) -> ServerSpec {
        let template = self.template;
        let mut env = template.env.clone();
        let mut volumes = template.volumes.clone();
        let mut arguments = Vec::new();
        for property in &template.properties {
            let Some(value) = values.get(&property.name) else {
                continue;
            };
            if self.spoiled.contains(&property.name) {
                continue;
            }
            if coerce::joined(value, "").contains('\0') {
                self.fail(&property.name, HAS_NUL);
                continue;
            }
            let value = match self.mounted(property, value, &mut volumes) {
                Ok(value) => value,
                Err(message) => {
                    self.fail(&property.name, message);
                    continue;
                }
            };
            if let Some(name) = &property.env {
                let text = coerce::joined(&value, property.joint());
                env.insert(name.clone(), secret_if(property.sensitive, text));
            }
            if let Some(rule) = &property.argument {
                let words = argument(rule, property, &value);
                arguments.extend(
                    words
                        .into_iter()
                        .map(|word| secret_if(property.sensitive, word)),
                );
            }
        }
        self.variables(&mut env, &given.env);
        ServerSpec {
            template: template.name.to_string(),
            template_version: template.version.clone(),
            image: template.image.clone(),
            transport: template.transport.clone(),
            entrypoint: template.entrypoint.clone(),
            command: template.command.clone(),
            arguments,
            env,
            volumes,
            isolation: template.isolation.clone(),
            timeout: template.timeout,
        }
    }

    /// Adds the variables that no setting maps to. What they hold is not
    /// known, so they count as secrets.
    fn variables(&mut self, env: &mut BTreeMap<String, Value>, given: &BTreeMap<String, String>) {
        for (name, value) in given {
            let mut properties = self.template.properties.iter();
            if properties.any(|property| property.env.as_ref() == Some(name)) {
                continue;
            }
            if !is_variable(name) {
                let message = "cannot be a variable: use letters, digits and `_`";
                self.fail(name, message);
                continue;
            }
            if value.contains('\0') {
                self.fail(name, HAS_NUL);
                continue;
            }
            env.insert(name.clone(), secret_if(true, value.clone()));
        }
    }

    /// The value as the server sees it: what it names on the engine's machine
    /// is mounted and goes by its place in the container.
    fn mounted(
        &self,
        property: &Property,
        value: &Json,
        mounts: &mut Vec<Mount>,
    ) -> Result<Json, String> {
        let Some(rule) = &property.mount else {
            return Ok(value.clone());
        };
        let sources = coerce::parts(value, property.separator.as_deref());
        let several = sources.len() > 1;
        let mut targets = Vec::with_capacity(sources.len());
        for source in &sources {
            let (source, target, read_only) = volumes::parse(source)?;
            let target = target.unwrap_or_else(|| match &rule.target {
                Some(target) if several => {
                    let last = source.rsplit('/').next().unwrap_or(&source);
                    format!("{}/{last}", target.trim_end_matches('/'))
                }
                Some(target) => target.clone(),
                None => volumes::default_target(&source),
            });
            if mounts
                .iter()
                .any(|mount| mount.target == target && mount.source != source)
            {
                return Err(format!(
                    "two sources would appear at {target}: say where, as SOURCE:TARGET"
                ));
            }
            let mount = Mount {
                source,
                target: target.clone(),
                read_only: read_only || rule.read_only,
            };
            if !mounts.contains(&mount) {
                mounts.push(mount);
            }
            targets.push(target);
        }
        Ok(match value {
            Json::Array(_) => targets.into(),
            _ if property.argument.is_some() || several => targets.into(),
            _ => targets.pop().unwrap_or_default().into(),
        })
    }
}

const HAS_NUL: &str = "has a NUL character in it, which no variable or argument can have";

fn secret_if(sensitive: bool, value: String) -> Value {
    Value { value, sensitive }
}

fn argument(rule: &ArgumentRule, property: &Property, value: &Json) -> Vec<String> {
    match rule {
        ArgumentRule::Plain => coerce::parts(value, property.separator.as_deref()),
        ArgumentRule::Flag(flag) => {
            let one = |value: &Json| match value {
                Json::Bool(true) if !flag.contains("{}") => vec![flag.clone()],
                Json::Bool(false) if !flag.contains("{}") => Vec::new(),
                value if flag.contains("{}") => vec![flag.replace("{}", &coerce::to_text(value))],
                value => vec![flag.clone(), coerce::to_text(value)],
            };
            match value {
                Json::Array(items) => items.iter().flat_map(one).collect(),
                value => one(value),
            }
        }
    }
}

/// A value for a message; never a secret.
fn found(property: &Property, value: &Json) -> String {
    const LONGEST: usize = 80;
    if property.sensitive {
        return "something else (not shown, it is a secret)".to_owned();
    }
    let text = shown(value);
    if text.chars().count() <= LONGEST {
        return text;
    }
    let cut: String = text.chars().take(LONGEST).collect();
    format!("{cut}…")
}

/// What the schema wanted at that place.
fn expectation(error: &ValidationError<'_>, property: Option<&Property>) -> String {
    let limit = |words: &str, limit: &Json| format!("{words} {limit}");
    match error.kind() {
        ValidationErrorKind::Enum { options } => match &**options {
            Json::Array(options) => {
                let options: Vec<_> = options.iter().map(shown).collect();
                format!("one of {}", options.join(", "))
            }
            other => shown(other),
        },
        ValidationErrorKind::Constant { expected_value } => shown(expected_value),
        ValidationErrorKind::Type { .. } if property.is_some() => {
            property.map(Property::expected).unwrap_or_default()
        }
        ValidationErrorKind::Minimum { limit: least } => limit("at least", least),
        ValidationErrorKind::Maximum { limit: most } => limit("at most", most),
        ValidationErrorKind::ExclusiveMinimum { limit: bound } => limit("more than", bound),
        ValidationErrorKind::ExclusiveMaximum { limit: bound } => limit("less than", bound),
        ValidationErrorKind::MinLength { limit: 1 } => "a text that is not empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("at most {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("at least {limit} items"),
        ValidationErrorKind::MaxItems { limit } => format!("at most {limit} items"),
        ValidationErrorKind::Pattern { pattern } => format!("a text that matches {pattern}"),
        ValidationErrorKind::Format { format } => format!("a text of the format {format}"),
        ValidationErrorKind::Required { property } => {
            format!("an object with {}", coerce::to_text(property))
        }
        // In the words of the schema's own vocabulary, without the value.
        _ => format!("something that fits ({})", error.masked_with("it")),
    }
}

/// A step of a JSON pointer.
fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests;
