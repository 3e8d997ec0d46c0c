//! `/api/templates`: recipes for servers, their settings and their tools.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::answer;
use crate::{
    cache::CacheStatus,
    config::Finding,
    discovery::{Discovered, DiscoveryError, Silent},
    gateway::Gateway,
    http::error::RestError,
    mcp::{Raw, json},
    templates::{
        ArgumentRule, Broken, Known, Property, Template,
        spec::{Isolation, StdioMode, Transport},
    },
};

#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    /// `http` or `stdio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// `built-in`, or the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Told<'a>>,
}

/// A finding in the words of the API.
#[derive(Serialize)]
struct Told<'a> {
    place: &'a str,
    key: &'a str,
    message: &'a str,
}

impl<'a> From<&'a Finding> for Told<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            place: &finding.place,
            key: &finding.key,
            message: &finding.message,
        }
    }
}

impl<'a> Summary<'a> {
    fn new(template: &'a Template) -> Self {
        Self {
            name: template.name.as_str(),
            title: Some(&template.title),
            version: template.version.as_deref(),
            transport: Some(match template.transport {
                Transport::Http { .. } => "http",
                Transport::Stdio { .. } => "stdio",
            }),
            image: Some(&template.image),
            description: Some(&template.description),
            origin: Some(template.origin.to_string()),
            problems: Vec::new(),
        }
    }

    fn broken(broken: &'a Broken) -> Self {
        Self {
            name: &broken.name,
            title: None,
            version: None,
            transport: None,
            image: None,
            description: None,
            origin: None,
            problems: broken.findings.iter().map(Told::from).collect(),
        }
    }
}

/// `GET /api/templates`
pub(super) async fn all(State(gateway): State<Arc<Gateway>>) -> Result<Response, RestError> {
    let known: Arc<Known> = gateway.catalogue.all().await?;
    let usable = known.templates.values();
    let usable = usable.map(|template| Summary::new(template));
    let broken = known.broken.iter().map(Summary::broken);
    Ok(answer(&usable.chain(broken).collect::<Vec<_>>()))
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// Whether its tools are discovered.
    #[serde(default)]
    tools: bool,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    speaks: Speaks<'a>,
    settings: Vec<Setting<'a>>,
    /// Variables that do not depend on settings; secrets are not shown.
    env: BTreeMap<&'a str, &'a str>,
    volumes: &'a [crate::templates::spec::Mount],
    isolation: &'a Isolation,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Tools>,
}

#[derive(Serialize)]
struct Speaks<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdio_mode: Option<StdioMode>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    supported: &'a [String],
}

impl<'a> From<&'a Template> for Speaks<'a> {
    fn from(template: &'a Template) -> Self {
        let (port, path, stdio_mode) = match &template.transport {
            Transport::Http { port, path } => (Some(*port), Some(path.as_str()), None),
            Transport::Stdio { mode } => (None, None, Some(*mode)),
        };
        Self {
            port,
            path,
            stdio_mode,
            supported: &template.supported,
        }
    }
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    types: &'a [String],
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    choices: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    required: bool,
    sensitive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<&'a str>,
    /// `true`, or the flag it follows.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "argument")]
    argument: Option<&'a ArgumentRule>,
    mounted: bool,
}

fn argument<S: Serializer>(rule: &Option<&ArgumentRule>, serializer: S) -> Result<S::Ok, S::Error> {
    match rule {
        Some(ArgumentRule::Flag(flag)) => serializer.serialize_str(flag),
        Some(ArgumentRule::Plain) | None => serializer.serialize_bool(true),
    }
}

impl<'a> From<&'a Property> for Setting<'a> {
    fn from(property: &'a Property) -> Self {
        let default = property.default.as_ref();
        Self {
            name: &property.name,
            title: property.title.as_deref(),
            description: property.description.as_deref(),
            types: &property.types,
            choices: &property.choices,
            default: default.map(|value| match property.sensitive {
                true => Value::from("***"),
                false => value.clone(),
            }),
            required: property.required,
            sensitive: property.sensitive,
            env: property.env.as_deref(),
            argument: property.argument.as_ref(),
            mounted: property.mount.is_some(),
        }
    }
}

/// What discovery brought.
#[derive(Serialize)]
struct Tools {
    tools: Box<Raw>,
    /// `servers`, `endpoint`, `ephemeral` or `static`; absent when nobody told.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// Whether they were kept from an earlier question.
    cached: bool,
    age_ms: u64,
    /// Who was asked and told nothing, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<Silent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Result<Discovered, DiscoveryError>> for Tools {
    fn from(discovered: Result<Discovered, DiscoveryError>) -> Self {
        match discovered {
            Ok(discovered) => {
                let found = &discovered.found;
                Self {
                    tools: json::raw_from_bytes(found.tools.array().to_vec()),
                    source: Some(found.source.as_str()),
                    server: found.server.clone(),
                    cached: matches!(discovered.status, CacheStatus::Hit | CacheStatus::Stale),
                    age_ms: u64::try_from(discovered.age.as_millis()).unwrap_or(u64::MAX),
                    silent: found.silent.clone(),
                    error: None,
                }
            }
            Err(error) => Self {
                tools: json::array([]),
                source: None,
                server: None,
                cached: false,
                age_ms: 0,
                error: Some(error.to_string()),
                silent: error.silent,
            },
        }
    }
}

/// `GET /api/templates/{template}`
pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, RestError> {
    let Query(wanted) =
        wanted.map_err(|_| RestError::bad_request("`tools` is either true or false"))?;
    let template = gateway.catalogue.get(&name).await?;
    let tools = match wanted.tools {
        true => Some(Tools::from(gateway.discovery.tools(&template).await)),
        false => None,
    };
    let env = template.env.iter();
    Ok(answer(&Whole {
        summary: Summary::new(&template),
        speaks: Speaks::from(&*template),
        settings: template.properties.iter().map(Setting::from).collect(),
        env: env
            .map(|(name, value)| (name.as_str(), value.shown()))
            .collect(),
        volumes: &template.volumes,
        isolation: &template.isolation,
        warnings: template.warnings.iter().map(Told::from).collect(),
        tools,
    }))
}
